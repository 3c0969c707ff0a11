"""The key of NVIDIA's repository: fetched by the host, judged before apt knows it.

The host's own apt fetches it (``apt-helper``, so the proxy and the mirror that packages come
through are those of the key), into a directory that only root and apt's download user can enter.
It is judged here, from its packets; only the certificate with the expected fingerprint goes into
the keyring, whatever else the file held.
"""

from __future__ import annotations

import base64
import re
import shlex
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from pyinfra.api.command import PyinfraCommand

from farrier.converge.commands import Script, in_words, last_lines, tell_failure
from farrier.converge.report import note
from farrier.nvidia.repository import normal
from farrier.openpgp import Certificate, CertificateError, read_certificates

if TYPE_CHECKING:
    from pyinfra.api import Host, State

__all__ = [
    "FetchKey",
    "Verdict",
    "Verifier",
    "judge_key",
    "spaced",
]

SOON = 30 * 86400
"""Seconds before its end from which a key is told to expire soon."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """What the host's apt verifies with, and the host's own time.

    *sqv*: Sequoia's ``sqv``, which has a policy, else GnuPG's ``gpgv``, which takes SHA-1
    bindings. *sha1_until* is the policy's last day for SHA-1 (apt's own: 2026-02-01), None where
    it names none. *now* is in seconds since 1970.
    """

    sqv: bool
    sha1_until: date | None
    now: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """*refused* is why the key is of no use, "" if it is good.

    *remark* is what has to be told at every run, *aside* once, when it is fetched. *certificate*
    is the one to put into the keyring, None if refused.
    """

    refused: str = ""
    remark: str = ""
    aside: str = ""
    certificate: Certificate | None = None


def judge_key(content: bytes, expected: str, verifier: Verifier) -> Verdict:
    """Whether *content* holds the key *expected* (a fingerprint), fit for the host's apt."""
    expected = normal(expected)
    try:
        certificates = read_certificates(content)
    except CertificateError as error:
        return Verdict(f"it is not the key {spaced(expected)}: {error}")
    mine = [one for one in certificates if one.fingerprint == expected]
    if not mine:
        found = " and ".join(spaced(one.fingerprint) for one in certificates)
        return Verdict(
            f"its fingerprint is\n  {found}, the expected one is\n  {spaced(expected)}\n"
            "Nothing was installed. If the repository was signed anew, compare it with what its"
            " owner publishes, then write nvidia_repo_fingerprint into the inventory"
        )
    (certificate, *_) = mine
    name = f"the key {expected[-8:]} ({', '.join(certificate.user_ids) or 'no name'})"
    if certificate.revoked:
        return Verdict(f"{name} was revoked by its owner: do not use it; ask for the new one")
    end = certificate.expires
    if end is not None and end <= verifier.now:
        return Verdict(
            f"{name} expired on {_day(end)}, the host says it is {_day(verifier.now)}\n"
            "Look at: date on the host; a renewed key of the same fingerprint is fetched by the"
            " next run, a new one wants nvidia_repo_fingerprint in the inventory"
        )
    if certificate.sha1_bound and verifier.sqv and verifier.sha1_until is not None:
        last = verifier.sha1_until
        if datetime.fromtimestamp(verifier.now, UTC).date() >= last:
            return Verdict(
                f"{name} is bound with SHA-1 only, which this host's apt (sqv) refuses since"
                f" {last.isoformat()}\n"
                "Use the repository of the host's own release (nvidia_repo_url, and its key), or"
                " a mirror that is signed with a key of your own (nvidia_repo_fingerprint)"
            )
    weak = f"{name} is bound with SHA-1 only, which this host's apt still accepts"
    remark = aside = ""
    if end is not None and end - verifier.now < SOON:
        remark = f"{name} expires on {_day(end)}"
    elif certificate.sha1_bound and verifier.sqv:
        remark = f"{weak} and will refuse from {verifier.sha1_until}"
    elif certificate.sha1_bound:
        aside = weak
    return Verdict(remark=remark, aside=aside, certificate=certificate)


def spaced(fingerprint: str) -> str:
    """In groups of four, as people compare them."""
    return " ".join(re.findall(".{1,4}", normal(fingerprint)))


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


class FetchKey(PyinfraCommand):
    """Fetch the key from *url*, judge it, and write it to *keyring*."""

    def __init__(self, url: str, expected: str, keyring: str, verifier: Verifier) -> None:
        super().__init__()
        self.url = url
        self.expected = expected
        self.keyring = keyring
        self.verifier = verifier

    def __repr__(self) -> str:
        return f"FetchKey({self.url})"

    def execute(self, state: State, host: Host, connector_arguments: Any) -> bool:
        """Do it; a key that is refused leaves the keyring as it was."""
        fetched, output = Script(_fetch(self.url), explain=self._unfetched).execute(
            state, host, connector_arguments
        )
        if not fetched:
            return False
        verdict = judge_key(_content(output.stdout_lines), self.expected, self.verifier)
        if verdict.certificate is None:
            tell_failure(host, f"{self.url} was not trusted: {verdict.refused}")
            return False
        if told := verdict.remark or verdict.aside:
            note("left", host.name, told)
        done, _ = Script(
            write_keyring(self.keyring),
            explain=in_words(f"{self.keyring} not written"),
            stdin=base64.b64encode(verdict.certificate.packets).decode(),
        ).execute(state, host, connector_arguments)
        return done

    def _unfetched(self, output: str) -> str:
        return (
            f"the repository's key could not be fetched from {self.url}:\n"
            f"{last_lines(output, 4)}\n"
            "Look at: nvidia_repo_url, nvidia_repo_key_url and nvidia_repo_proxy in the inventory;"
            f" curl -I {self.url} on the host"
        )


_BEGIN = "farrier: key follows"


def _fetch(url: str) -> str:
    # apt downloads as its own user, which has to reach the file; nobody else can.
    return f"""
d=$(mktemp -d /run/farrier-key.XXXXXXXX)
trap 'rm -rf "$d"' EXIT
if getent passwd _apt >/dev/null; then chown _apt "$d"; fi
chmod 700 "$d"
/usr/lib/apt/apt-helper -o Acquire::Retries=2 -o Acquire::http::Timeout=20 \\
    -o Acquire::https::Timeout=20 download-file {shlex.quote(url)} "$d/key" >&2
[ "$(stat -c %s "$d/key")" -le 1000000 ] || {{ echo "it is larger than a key" >&2; exit 1; }}
echo '{_BEGIN}'
base64 "$d/key"
"""


def _content(lines: list[str]) -> bytes:
    return base64.b64decode("".join(lines[lines.index(_BEGIN) + 1 :]))


def write_keyring(path: str) -> str:
    """The script that writes standard input, in base64, to the keyring *path*."""
    keyring, new = shlex.quote(path), shlex.quote(f"{path}.farrier-new")
    return (
        f"umask 022\nmkdir -p {shlex.quote(path.rpartition('/')[0])}\nbase64 -d > {new}\n"
        f"chown root:root {new}\nchmod 644 {new}\nmv -fT {new} {keyring}"
    )
