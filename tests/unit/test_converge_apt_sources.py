"""Repositories of others: what is written for apt, and whose key is accepted."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from farrier.converge.apt_repository import (
    AptSource,
    SourceState,
    explain_update,
    parse_source,
    proxy_text,
    source_text,
    wrong_key,
)
from farrier.openpgp import read_certificates


def source(fingerprint: str = "AB" * 20, proxy: str | None = None) -> AptSource:
    return AptSource(
        "toolkit", "https://repo.example/deb/{arch}", "https://repo.example/key", fingerprint,
        proxy=proxy,
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gpg's home with two keys, one of them with a subkey for signing."""
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    for name, kind in (("one", "rsa2048"), ("two", "ed25519")):
        gpg(home, "--passphrase", "", "--quick-generate-key", f"{name}@example.org", kind)
    gpg(home, "--passphrase", "", "--quick-add-key", fingerprint(home, "one"), "rsa2048", "sign")
    return home


def gpg(home: Path, *words: str) -> bytes:
    """What the real gpg prints."""
    return subprocess.run(
        ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", *words],
        check=True,
        capture_output=True,
    ).stdout


def fingerprints(content: bytes) -> tuple[str, ...]:
    return tuple(one.fingerprint for one in read_certificates(content))


def fingerprint(home: Path, name: str) -> str:
    listed = gpg(home, "--with-colons", "--list-keys", f"{name}@example.org").decode()
    return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))


@pytest.mark.parametrize("armor", [["--armor"], []], ids=["armored", "binary"])
def test_fingerprints_are_those_that_gpg_says(home: Path, armor: list[str]) -> None:
    one, two = (fingerprint(home, name) for name in ("one", "two"))
    exported = [gpg(home, *armor, "--export", name) for name in (one, two)]
    assert [fingerprints(key) for key in exported] == [(one,), (two,)]
    assert fingerprints(b"".join(exported)) == (one, two)
    assert wrong_key(exported[0], source(one.lower()).on(SourceState())) == ""
    assert one in wrong_key(exported[0], source(two))
    assert wrong_key(b"".join(exported), source(one)) != "", "a second key could sign as well"


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>moved</html>", b"\x99", b"\xff\xff", b"-----BEGIN PGP PUBLIC KEY BLOCK-----"],
)
def test_what_is_no_key_is_refused(content: bytes) -> None:
    assert "no OpenPGP key" in wrong_key(content, source())


def test_what_is_written_for_apt() -> None:
    assert source_text(source().on(SourceState("arm64")), "arm64").splitlines()[1:] == [
        "Types: deb",
        "URIs: https://repo.example/deb/arm64",
        "Suites: /",
        "Architectures: arm64",
        "Signed-By: /etc/apt/keyrings/farrier-toolkit.gpg",
    ]
    assert proxy_text(source()) == ""
    assert proxy_text(source(proxy="http://proxy:3128")) == (
        'Acquire::https::Proxy::repo.example "http://proxy:3128";\n'
    )


def test_a_source_is_filled_in_for_the_host() -> None:
    of_nvidia = AptSource(
        "cuda",
        "https://repo.example/{distro}/{machine}/",
        "{uri}/{key}.pub",
        {"debian12": "ab" * 20},
    )
    here = of_nvidia.on(SourceState("arm64", "debian12"))
    assert here.uri == "https://repo.example/debian12/sbsa"
    assert (here.fingerprint, here.key_url) == ("AB" * 20, f"{here.uri}/abababab.pub")
    with pytest.raises(LookupError):
        of_nvidia.on(SourceState("amd64", "debian14"))


def test_what_a_host_has() -> None:
    assert parse_source(["arch amd64", "distro debian12"]) == SourceState("amd64", "debian12")
    key = bytes(range(256))
    lines = [
        "arch amd64",
        "file /etc/apt/preferences.d/farrier-toolkit ",
        f"file /etc/apt/keyrings/farrier-toolkit.gpg {base64.b64encode(key).decode()}",
        "elsewhere /etc/apt/sources.list.d/by hand.list",
        "keyuser /etc/apt/sources.list.d/other.sources",
    ]
    assert parse_source(lines) == SourceState(
        "amd64",
        "",
        {
            "/etc/apt/preferences.d/farrier-toolkit": b"",
            "/etc/apt/keyrings/farrier-toolkit.gpg": key,
        },
        ("/etc/apt/sources.list.d/by hand.list",),
        ("/etc/apt/sources.list.d/other.sources",),
    )


# Written after the words of apt 2.6 and 3.0.
EXPIRED = "W: GPG error: http://r ./ InRelease: The following signatures were invalid: EXPKEYSIG 12"
OTHER = "  The following signatures couldn't be verified: NO_PUBKEY 57"
WEAK = "  Sub-process /usr/bin/sqv returned an error code (1): SHA1 is not considered secure since"
OFFLINE = "E: Failed to fetch http://r/InRelease  Could not connect to r:80"


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        (EXPIRED, "has expired"),
        (OTHER, "is not signed by the key"),
        (WEAK, "bound by SHA-1"),
        (OFFLINE, "could not be read"),
    ],
)
def test_why_a_source_was_not_accepted(output: str, cause: str) -> None:
    told = explain_update(f"Reading package lists...\n{output}\n", source())
    assert cause in told
    assert output.strip() in told
    assert told.endswith("run the deploy again")
