"""Keys of the stand-in repositories, in a keyring of their own, and what is signed with them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["KINDS", "Key", "Signer"]

KINDS = ("good", "wrong", "expired", "sha1")
"""good; another good one; one that expired in 2021; one that only SHA-1 binds, as NVIDIA's does."""


@dataclass(frozen=True)
class Key:
    """A key pair of the signer's keyring."""

    kind: str
    fingerprint: str
    armored: bytes


class Signer:
    """gpg with a home directory of its own, which has to have a short path (its socket's)."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(mode=0o700)
        self.keys = {kind: self._make(kind) for kind in KINDS}

    def _gpg(self, *arguments: str, data: bytes = b"") -> bytes:
        options = ["--homedir", str(self.home), "--batch", "--quiet", "--no-tty", "--yes"]
        done = subprocess.run(
            ["gpg", *options, "--pinentry-mode", "loopback", "--passphrase", "", *arguments],
            input=data,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"gpg {' '.join(arguments)}: {done.stderr.decode()}")
        return done.stdout

    def _make(self, kind: str) -> Key:
        options: list[str] = []
        algorithm, until = "ed25519", "never"
        if kind == "sha1":
            algorithm, options = "rsa2048", ["--cert-digest-algo", "SHA1"]
        if kind == "expired":
            until, options = "1y", ["--faked-system-time", "20200601T000000"]
        user = f"Stand-in {kind} <{kind}@example.invalid>"
        self._gpg(*options, "--quick-generate-key", user, algorithm, "sign", until)
        listing = self._gpg("--with-colons", "--list-keys", f"{kind}@example.invalid").decode()
        fingerprint = next(
            line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr")
        )
        return Key(kind, fingerprint, self._gpg("--armor", "--export", fingerprint))

    def sign(self, release: str, kind: str) -> str:
        """*release* as an InRelease file."""
        options = ["--digest-algo", "SHA512"]
        if kind == "expired":
            options += ["--faked-system-time", "20200701T000000"]
        signed = self._gpg(
            *options, "--clearsign", "-u", self.keys[kind].fingerprint, data=release.encode()
        )
        return signed.decode()

    def stop(self) -> None:
        """End its agent."""
        subprocess.run(
            ["gpgconf", "--homedir", self.home, "--kill", "all"], check=False, capture_output=True
        )
