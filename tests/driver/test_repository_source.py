"""The source of the driver's packages through the real apt: key, pin, proxy, directory, removal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.driver.depot import BOTH, Depot
from tests.fakes.nvidia_repo.catalogue import VERSIONS
from tests.roles.converging import Run

NEWEST_580 = "580.105.08-1"


def refused(run: Run, host: str, *words: str) -> None:
    """*host* failed, and its last lines say every one of *words*."""
    assert run.returncode == 1, run.last_words()
    assert "Traceback" not in run.stderr, run.stderr
    failed = run.last_section("Failed:")
    mine = failed.partition(f"  {host}: ")[2].partition("\n  gpu0")[0]
    assert [word for word in words if word not in mine] == [], failed


def test_good_key_then_nothing_to_do(depot: Depot) -> None:
    run = depot.source()
    assert run.returncode == 0, run.last_words()
    for host in BOTH:
        assert depot.candidate(host, "nvidia-kernel-open-dkms") == f"{VERSIONS[-1]}-1"
        assert (
            depot.root(host, "stat -c %a:%U /etc/apt/keyrings/farrier-nvidia.gpg") == "644:root\n"
        )
    again = depot.source()
    assert again.returncode == 0, again.last_words()
    assert [again.changed(host) for host in BOTH] == [[], []]


def test_nothing_but_the_driver_comes_from_it(depot: Depot) -> None:
    assert depot.source().returncode == 0
    for host in BOTH:
        depot.root(host, "apt-get -qq update")
        assert not depot.candidate(host, "hello").startswith("99")
        # What nobody else has is there for whoever asks for it by name.
        assert depot.candidate(host, "cuda-toolkit-13-0") == "13.0.2-1"
        assert "900" in depot.root(host, "apt-cache policy libcuda1")


def test_wrong_key_is_refused_by_fingerprint(depot: Depot) -> None:
    prints = depot.standin.fingerprints
    there = f"{depot.standin.url}/wrong/debian12/x86_64/{prints['wrong'][-8:].lower()}.pub"
    run = depot.source(nvidia_repo_key_url=there)
    for host in BOTH:
        refused(run, host, prints["good"][-4:], prints["wrong"][-4:], "Nothing was installed")
        assert "/etc/apt/keyrings/farrier-nvidia.gpg" not in depot.files(host)
        assert "/etc/apt/sources.list.d/farrier-nvidia.sources" not in depot.files(host)


def test_good_key_of_a_forged_repository_is_no_help(depot: Depot) -> None:
    forged = f"{depot.standin.url}/forged/{{distro}}/{{arch}}"
    run = depot.source(nvidia_repo_url=forged)
    for host in BOTH:
        refused(run, host, "is not signed with the key", "apt does not know it")
        assert "/etc/apt/sources.list.d/farrier-nvidia.sources" not in depot.files(host)
        depot.root(host, "apt-get -qq update")


def test_expired_key_is_refused_by_date(depot: Depot) -> None:
    run = depot.source(kind="expired")
    for host in BOTH:
        refused(run, host, "expired on 2021-06-01", depot.standin.fingerprints["expired"][-8:])


def test_sha1_bound_key_is_refused_where_apt_has_sqv(depot: Depot) -> None:
    run = depot.source(kind="sha1")
    refused(run, "gpu02", "SHA-1", "sqv", "2026-02-01")
    assert "gpu01" not in run.last_section("Failed:")
    assert "SHA-1" in run.last_section("Left as it is:")
    assert depot.candidate("gpu01", "nvidia-kernel-open-dkms") == f"{VERSIONS[-1]}-1"
    # The judgement is that of apt itself.
    policy = "/etc/crypto-policies/back-ends/apt-sequoia.config"
    depot.root(
        "gpu02",
        f"mkdir -p $(dirname {policy}); sed 's/^sha1.*/sha1.second_preimage_resistance ="
        f" 2036-02-01/' /usr/share/apt/default-sequoia.config > {policy}",
    )
    try:
        allowed = depot.source("gpu02", kind="sha1")
        assert allowed.returncode == 0, allowed.last_words()
        assert "2036-02-01" in allowed.last_section("Left as it is:")
    finally:
        depot.root("gpu02", f"rm -rf {policy}")


def test_installed_keyring_that_expired_meanwhile_is_told(depot: Depot) -> None:
    assert depot.source("gpu02").returncode == 0
    prints = depot.standin.fingerprints
    there = f"{depot.standin.url}/expired/debian13/x86_64/{prints['expired'][-8:].lower()}.pub"
    depot.root(
        "gpu02",
        f"cd /tmp; /usr/lib/apt/apt-helper download-file {there} k.asc >/dev/null;"
        " sed '1,/^$/d; /^=/d; /^-----/d' k.asc | base64 -d > /etc/apt/keyrings/farrier-nvidia.gpg",
    )
    run = depot.source("gpu02", kind="expired")
    refused(run, "gpu02", "expired on 2021-06-01")


def test_through_a_proxy_alone(depot: Depot) -> None:
    behind = f"{depot.standin.behind_proxy}/good/{{distro}}/{{arch}}"
    depot.standin.asked()
    assert depot.source("gpu01", nvidia_repo_url=behind).returncode == 1
    run = depot.source(nvidia_repo_url=behind, nvidia_repo_proxy=depot.standin.proxy)
    assert run.returncode == 0, run.last_words()
    asked = depot.standin.asked()
    for system in ("debian12", "debian13"):
        there = f"{depot.standin.behind_proxy}/good/{system}/x86_64"
        assert f"{there}/InRelease" in asked
        assert any(url.startswith(there) and url.endswith(".pub") for url in asked)
    again = depot.source(nvidia_repo_url=behind, nvidia_repo_proxy=depot.standin.proxy)
    assert [again.changed(host) for host in BOTH] == [[], []]


def test_same_repository_with_another_keyring(depot: Depot) -> None:
    there = "/etc/apt/sources.list.d/cuda-debian12-x86_64.list"
    url = f"{depot.standin.url}/good/debian12/x86_64/"
    signed = "/usr/share/keyrings/cuda-archive-keyring.gpg"
    depot.root("gpu01", f"echo 'deb [signed-by={signed}] {url} /' > {there}")
    try:
        refused(depot.source("gpu01"), "gpu01", there, signed, "apt-get purge cuda-keyring")
    finally:
        depot.root("gpu01", f"rm -f {there}")


def test_debians_archive(depot: Depot) -> None:
    run = depot.source(nvidia_driver_source="debian")
    assert run.returncode == 0, run.last_words()
    assert depot.candidate("gpu01", "nvidia-kernel-dkms").startswith("535.")
    assert depot.candidate("gpu02", "nvidia-kernel-dkms").startswith("550.")
    again = depot.source(nvidia_driver_source="debian")
    assert [again.changed(host) for host in BOTH] == [[], []]


def test_directory_on_the_operators_machine(depot: Depot, tmp_path: Path) -> None:
    for deb in depot.standin.debs.glob("*_580.95.05-1_amd64.deb"):
        (tmp_path / deb.name).write_bytes(deb.read_bytes())
    wanted = {"nvidia_driver_source": "directory", "nvidia_driver_directory": str(tmp_path)}
    run = depot.source(**wanted)
    assert run.returncode == 0, run.last_words()
    for host in BOTH:
        assert depot.candidate(host, "nvidia-kernel-open-dkms") == "580.95.05-1"
        depot.root(host, "cd /tmp && apt-get -qq download libcuda1=580.95.05-1 && rm libcuda1_*")
    again = depot.source(**wanted)
    assert [again.changed(host) for host in BOTH] == [[], []]
    # One more, and one less.
    newer = depot.standin.debs / f"libcuda1_{NEWEST_580}_amd64.deb"
    (tmp_path / newer.name).write_bytes(newer.read_bytes())
    (tmp_path / "libnvidia-ml1_580.95.05-1_amd64.deb").unlink()
    assert depot.source(**wanted).returncode == 0
    for host in BOTH:
        assert depot.candidate(host, "libcuda1") == NEWEST_580
        assert depot.candidate(host, "libnvidia-ml1") in {"", "(none)"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"nvidia_driver_source": "directory"}, "nvidia_driver_directory"),
        (
            {"nvidia_driver_source": "directory", "nvidia_driver_directory": "/nowhere"},
            "/nowhere is no directory",
        ),
        ({"nvidia_driver_source": "ubuntu"}, 'say "debian" or "nvidia"'),
        ({"nvidia_repo_proxy": "proxy:3128"}, "http://host:port"),
        ({"nvidia_repo_url": "http://198.18.6.1:1/{distro}"}, "nvidia_repo_url"),
    ],
)
def test_what_the_inventory_got_wrong(depot: Depot, more: dict[str, Any], words: str) -> None:
    refused(depot.source("gpu01", **more), "gpu01", words)
    assert depot.root("gpu01", "ls /etc/apt/sources.list.d") == ""
