"""apt's files for the driver's source: their texts, and what is read of a host's own ones."""

from __future__ import annotations

import base64
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from farrier.nvidia.repository import FINGERPRINTS
from roles.nvidia_driver.apt_files import (
    Entry,
    archive_sources,
    preferences,
    proxy_settings,
    read_entries,
    repository_sources,
)
from roles.nvidia_driver.keys import Verifier
from roles.nvidia_driver.pushing import SourceDirectoryError, deb_files
from roles.nvidia_driver.source_plan import SourceError, plan_source, repository_url
from roles.nvidia_driver.source_state import (
    KEYRING,
    PACKAGES,
    PREFERENCES,
    PROXY,
    SOURCES,
    SourceState,
    parse_state,
)
from roles.nvidia_driver.sources import EndedBranch, absent

DEBIAN = "http://deb.debian.org/debian"
LIST = f"""\
# a comment
deb {DEBIAN} bookworm main  # the release
deb [ arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg ] \
http://security.debian.org/debian-security bookworm-security main contrib
deb-src {DEBIAN} bookworm main
deb cdrom:[Debian]/ bookworm
"""
UBUNTU = """\
Types: deb deb-src
URIs: http://archive.ubuntu.com/ubuntu/
Suites: noble noble-updates
Components: main universe
 restricted
# Signed-By: /elsewhere
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg

Enabled: no
Types: deb
URIs: http://example.invalid/
Suites: ./

Types: deb
URIs: http://example.invalid/flat/
Suites: ./
Trusted: yes
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQ==
"""

BOOKWORM = SourceState(
    "debian12",
    "bookworm",
    "amd64",
    Verifier(sqv=False, sha1_until=None, now=1.8e9),
    entries=read_entries("/etc/apt/sources.list", LIST),
)
NOBLE = SourceState(
    "ubuntu2404",
    "noble",
    "arm64",
    Verifier(sqv=False, sha1_until=None, now=1.8e9),
    entries=read_entries("/etc/apt/sources.list.d/ubuntu.sources", UBUNTU),
)


def test_one_line_sources() -> None:
    signed = "/usr/share/keyrings/debian-archive-keyring.gpg"
    security = "http://security.debian.org/debian-security"
    assert read_entries("l", LIST)[:2] == (
        Entry("l", DEBIAN, "bookworm", ("main",)),
        Entry("l", security, "bookworm-security", ("main", "contrib"), signed),
    )


def test_deb822_sources() -> None:
    first, second, flat = read_entries("x.sources", UBUNTU)
    assert first.uri == "http://archive.ubuntu.com/ubuntu/"
    assert [first.suite, second.suite] == ["noble", "noble-updates"]
    assert first.components == ("main", "universe", "restricted")
    assert first.signed_by == "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
    assert (flat.uri, flat.suite, flat.trusted) == ("http://example.invalid/flat/", "./", "yes")
    assert flat.signed_by.startswith("-----BEGIN")


def test_components_are_added_to_the_hosts_own_mirror() -> None:
    text = archive_sources(BOOKWORM.entries, "bookworm", ("contrib", "non-free"), "amd64")
    assert text is not None
    first, second = read_entries("x.sources", text)
    assert (first.uri, first.suite) == (DEBIAN, "bookworm")
    assert (first.components, first.signed_by) == (("contrib", "non-free"), "")
    # contrib of security is there already, and so is its keyring
    assert (second.suite, second.components) == ("bookworm-security", ("non-free",))
    assert second.signed_by.endswith("debian-archive-keyring.gpg")


def test_nothing_is_added_where_nothing_is_missing() -> None:
    assert archive_sources(NOBLE.entries, "noble", ("restricted",), "arm64") == ""


def test_no_archive_among_the_sources() -> None:
    third_party = (Entry("l", "http://apt.example.invalid", "bookworm-pgdg", ("main",)),)
    assert archive_sources(third_party, "bookworm", ("contrib",), "amd64") is None


def test_a_third_partys_main_is_not_the_archive() -> None:
    entries = (
        *BOOKWORM.entries,
        Entry("l", "https://deb.nodesource.com/node", "bookworm", ("main",)),
    )
    text = archive_sources(entries, "bookworm", ("contrib",), "amd64")
    assert text is not None
    assert "nodesource" not in text


def test_nvidias_repository() -> None:
    wanted = plan_source("nvidia", BOOKWORM)
    there = "https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64"
    assert wanted.uri == there
    assert wanted.key_url == f"{there}/3bf863cc.pub"
    assert wanted.fingerprint == FINGERPRINTS["debian12"]
    *_, entry = read_entries(SOURCES, wanted.files[SOURCES])
    assert (entry.uri, entry.suite, entry.signed_by) == (f"{there}/", "/", KEYRING)
    assert wanted.files[PROXY] == ""
    # NVIDIA's packages for Debian want its contrib.
    assert "Components: contrib\n" in wanted.files[SOURCES]


def test_a_mirror_of_it() -> None:
    assert repository_url("http://m/{distro}/{arch}", "ubuntu2404", "arm64") == (
        "http://m/ubuntu2404/sbsa"
    )
    wanted = plan_source(
        "nvidia",
        NOBLE,
        url="http://mirror:8081/cuda",
        key_url="https://keys.example.invalid/k.asc",
        fingerprint="ab " * 20,
        proxy="http://proxy:3128",
    )
    assert wanted.fingerprint == "AB" * 20
    assert wanted.files[PROXY].splitlines()[1:] == [
        'Acquire::http::Proxy::mirror "http://proxy:3128";',
        'Acquire::https::Proxy::mirror "http://proxy:3128";',
        'Acquire::http::Proxy::keys.example.invalid "http://proxy:3128";',
        'Acquire::https::Proxy::keys.example.invalid "http://proxy:3128";',
    ]


@pytest.mark.parametrize(
    ("source", "now", "more", "words"),
    [
        ("ubuntu", BOOKWORM, {}, 'say "debian" or "nvidia"'),
        ("debian", NOBLE, {}, 'say "ubuntu" or "nvidia"'),
        ("nvidia", BOOKWORM, {"proxy": "http://u:p@proxy:1"}, "auth.conf.d"),
        ("nvidia", BOOKWORM, {"proxy": 'http://p";x "'}, "http://host:port"),
        ("nvidia", SourceState("debian11", "bullseye", "amd64", NOBLE.verifier), {}, "debian11"),
        ("debian", SourceState("debian12", "bookworm", "amd64", NOBLE.verifier), {}, "non-free"),
    ],
)
def test_what_cannot_be(source: str, now: SourceState, more: dict[str, Any], words: str) -> None:
    with pytest.raises(SourceError, match=words):
        plan_source(source, now, **more)


def test_two_keyrings_for_one_repository() -> None:
    url = plan_source("nvidia", BOOKWORM).uri
    path = "/etc/apt/sources.list.d/cuda-debian12-x86_64.list"

    def with_entry(signed_by: str) -> SourceState:
        entries = (*BOOKWORM.entries, Entry(path, f"{url}/", "/", (), signed_by))
        return SourceState("debian12", "bookworm", "amd64", BOOKWORM.verifier, entries=entries)

    with pytest.raises(SourceError, match="apt-get purge cuda-keyring"):
        plan_source("nvidia", with_entry("/usr/share/keyrings/cuda-archive-keyring.gpg"))
    assert plan_source("nvidia", with_entry(KEYRING)).uri == url


@pytest.mark.parametrize("source", ["nvidia", "directory", "debian", "ubuntu"])
def test_preferences(source: str) -> None:
    records = [
        dict(line.split(": ", 1) for line in record.splitlines() if not line.startswith("#"))
        for record in preferences(source).strip().split("\n\n")
    ]
    first = records[0]
    assert first["Pin-Priority"] == "900"
    assert any(fnmatchcase("libcuda1", pattern) for pattern in first["Package"].split())
    others = [record for record in records if record["Package"] == "*"]
    assert [record["Pin-Priority"] for record in others] == (
        ["1"] if source in {"nvidia", "directory"} else []
    )
    banned = [record["Pin"] for record in records if record["Pin-Priority"] == "-1"]
    assert banned == ([] if source == "nvidia" else ["release l=NVIDIA CUDA"])


def test_proxy_of_an_address() -> None:
    assert "Proxy::198.18.6.1 " in proxy_settings(
        "http://p:1", ["http://198.18.6.1:80/x", "file:/y"]
    )


def test_our_sources_can_be_read_back() -> None:
    (entry,) = read_entries(SOURCES, repository_sources("http://m/x", KEYRING, "amd64"))
    assert entry == Entry(SOURCES, "http://m/x/", "/", (), KEYRING)


def _said(name: str, value: str | bytes) -> str:
    raw = value.encode() if isinstance(value, str) else value
    return f"{name} {base64.b64encode(raw).decode()}"


def test_what_a_host_says() -> None:
    state = parse_state(
        [
            _said("release", 'ID=ubuntu\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n'),
            _said("architecture", "amd64\n"),
            _said("now", "1800000000\n"),
            _said("sqv", "/usr/bin/sqv\n"),
            _said(
                "policy", "[hash_algorithms]\nsha1.second_preimage_resistance = 2026-02-01 # x\n"
            ),
            _said("keyring", b"\x99\x01"),
            _said(f"own:{SOURCES}", "Types: deb\n"),
            _said("source:/etc/apt/sources.list.d/ubuntu.sources", UBUNTU),
            _said("listed", "http://m/x/\nhttp://m/x/\nhttp://n/\n"),
            _said("sums", f"{'a' * 64}  one.deb\n{'b' * 64}  gone.deb\n"),
            _said("sizes", f"12 {PACKAGES}/one.deb\n34 {PACKAGES}/foreign.deb\n"),
            "end",
        ]
    )
    assert state is not None
    assert (state.system, state.codename, state.architecture) == ("ubuntu2404", "noble", "amd64")
    assert state.verifier == Verifier(sqv=True, sha1_until=date(2026, 2, 1), now=1.8e9)
    assert state.keyring == b"\x99\x01"
    assert state.files == {SOURCES: "Types: deb\n"}
    assert len(state.entries) == 3
    assert state.has_lists("http://m/x")
    assert not state.has_lists("http://m/y")
    assert state.pushed == {"one.deb": (12, "a" * 64)}


def test_half_an_answer_is_none() -> None:
    assert parse_state([]) is None
    assert parse_state([_said("release", "ID=debian\n")]) is None


def test_removal_takes_all_of_it() -> None:
    paths = {entry.path for entry in absent()}
    assert paths == {SOURCES, PREFERENCES, PROXY, KEYRING, PACKAGES}


def test_directory(tmp_path: Path) -> None:
    for name in ("a_1_amd64.deb", "b_1_all.deb", "c_1_arm64.deb", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    found = deb_files(str(tmp_path), "amd64")
    assert [deb.name for deb in found] == ["a_1_amd64.deb", "b_1_all.deb"]
    assert found[0].size == len("a_1_amd64.deb")


@pytest.mark.parametrize(
    ("names", "words"), [((), "holds no"), (("c_1_arm64.deb",), "c_1_arm64.deb and the like")]
)
def test_directory_without_what_is_needed(
    tmp_path: Path, names: tuple[str, ...], words: str
) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(SourceDirectoryError, match=words):
        deb_files(str(tmp_path), "amd64")
    with pytest.raises(SourceDirectoryError, match="is no directory"):
        deb_files(str(tmp_path / "x"), "amd64")
    with pytest.raises(SourceDirectoryError, match="nvidia_driver_directory"):
        deb_files(None, "amd64")


def test_a_branch_that_ended() -> None:
    """noble-updates on 2026-11-21, the fields that count, and what an older pocket still has."""
    said = """\
Package: nvidia-dkms-570-server-open
Version: 570.211.01-0ubuntu1.24.04.1
Depends: nvidia-dkms-580-server-open
Description: NVIDIA DKMS package (open kernel module)
 This package builds it.

Package: nvidia-dkms-570-server-open
Version: 570.195.03-0ubuntu0.24.04.1
Depends: dkms, nvidia-kernel-source-570-server-open (>= 570.195.03)
"""
    names = (
        "nvidia-dkms-570-server-open is an empty package that installs nvidia-dkms-580-server-open"
    )
    assert EndedBranch().process(said.splitlines()) == names
    older = said.partition("\n\n")[2]
    assert EndedBranch().process(older.splitlines()) == ""
    assert EndedBranch().process([]) == ""
