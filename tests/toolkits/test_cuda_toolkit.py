"""Role cuda_toolkit: stand-in packages of NVIDIA's names, and the real plan of Debian's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.roles.converging import Converge
from tests.roles.fleet import Fleet
from tests.toolkits.conftest import Role
from tests.toolkits.standins import Depot

HOST = "gpu01"
NON_FREE = "/etc/apt/sources.list.d/standin-non-free.list"


@pytest.fixture
def role(hosts: Fleet, converge: Converge) -> Iterator[Role]:
    it = Role("cuda_toolkit", HOST, converge)
    yield it
    it.removed()
    hosts.root(HOST, f"rm -f {NON_FREE}; apt-get -q -y purge tree", check=False)
    assert installed(hosts) == {}


def installed(hosts: Fleet) -> dict[str, str]:
    """CUDA packages and what could come along with them, with their versions."""
    names = "'cuda-*' 'libcuda1' 'nvidia-*' hello"
    lines = hosts.ssh(
        HOST,
        f"dpkg-query -W -f '${{db:Status-Abbrev}}${{Package}} ${{Version}}\\n' {names} 2>/dev/null",
        check=False,
    )
    return dict(line[3:].split() for line in lines.splitlines() if line[1] != "n")


def held(hosts: Fleet) -> list[str]:
    return hosts.ssh(HOST, "apt-mark showhold").split()


def test_it_is_off_unless_asked_for(role: Role, packages: Depot) -> None:
    run = role.brought(**packages.data())
    assert run.operations == []


def test_a_toolkit_comes_is_held_changes_and_goes(
    role: Role, hosts: Fleet, packages: Depot
) -> None:
    data = packages.data()
    role.brought(**data, cuda_toolkit_version="13.0.1")
    of = {"cuda-nvcc-13-0", "cuda-toolkit-13-0", "cuda-toolkit-config-common"}
    assert installed(hosts)["cuda-toolkit-13-0"] == "13.0.1-1"
    assert set(held(hosts)) == set(installed(hosts)) == of
    assert hosts.ssh(HOST, "/usr/local/cuda/bin/nvcc") == "release 13.0 (stand-in)\n"
    assert "/usr/local/cuda-13.0" in hosts.ssh(HOST, "readlink -f /usr/local/cuda")
    upgrade = hosts.root(HOST, "apt-get -s dist-upgrade")
    assert "Inst cuda" not in upgrade
    assert "Candidate: 2." in hosts.ssh(HOST, "apt-cache policy hello"), "Debian's, not NVIDIA's"

    # What is there fits, so the newer one that is on offer is left alone.
    role.brought(**data, cuda_toolkit_version="13.0")
    assert installed(hosts)["cuda-toolkit-13-0"] == "13.0.1-1"
    role.brought(**data, cuda_toolkit_version="13.0.2")
    assert set(installed(hosts).values()) == {"13.0.2-1"}
    assert set(held(hosts)) == of

    role.removed(**data, cuda_toolkit_version="13.0.2")
    assert (installed(hosts), held(hosts)) == ({}, [])
    left = (
        "/usr/local/cuda* /etc/apt/*/farrier-* /etc/apt/keyrings/farrier-* /etc/alternatives/cuda"
    )
    assert hosts.ssh(HOST, f"ls -d {left} 2>/dev/null", check=False) == ""
    assert "tree" in hosts.ssh(HOST, "dpkg-query -W tree"), "the distribution's packages stay"


def test_what_it_does_not_do(role: Role, hosts: Fleet, packages: Depot) -> None:
    data = packages.data()
    role.refused("'13' is not like '13.0'", **data, cuda_toolkit_version="13")
    role.refused("'cuda' is none of nvidia", **data, cuda_toolkit_version="13.0",
                 cuda_toolkit_source="cuda")  # fmt: skip
    unknown = ("cuda-toolkit-12-4", "apt offers no version", "cuda_toolkit_version")
    role.refused(*unknown, **data, cuda_toolkit_version="12.4")
    driver = ("libcuda1", "would come along", "nothing was changed", "apt-get -s install")
    role.refused(*driver, **data, cuda_toolkit_version="14.0")
    role.refused("hello (>= 99)", "nothing was changed", **data, cuda_toolkit_version="14.1")
    assert installed(hosts) == {}


def test_debians_own_does_not_bring_a_driver(role: Role, hosts: Fleet) -> None:
    """The plan of the real packages (4 GB, so no more than the plan)."""
    line = "deb http://deb.debian.org/debian bookworm contrib non-free non-free-firmware\n"
    hosts.put(HOST, NON_FREE, line)
    data = {"cuda_toolkit_source": "distribution", "cuda_toolkit_version": "11.8"}
    role.refused("nvidia-cuda-toolkit 11.8.89", "would come along", **data)
    assert installed(hosts) == {}
    role.refused("apt offers 11.8.89", **data | {"cuda_toolkit_version": "12.4"})


def test_a_repository_that_apt_knows_already_is_used(
    role: Role, hosts: Fleet, packages: Depot
) -> None:
    """As after the driver's role: twice named with two keyrings it would be refused by apt."""
    data = packages.data()
    url, key = data["cuda_toolkit_repo_url"], packages.fingerprints["good"][-8:].lower()
    hosts.put(
        HOST,
        "/etc/apt/sources.list.d/site.sources",
        f"Types: deb\nURIs: {url}\nSuites: /\nSigned-By: /etc/apt/keyrings/site.asc\n",
    )
    fetch = f"/usr/lib/apt/apt-helper download-file {url}/{key}.pub /etc/apt/keyrings/site.asc"
    hosts.root(HOST, f"mkdir -p /etc/apt/keyrings && {fetch}")
    try:
        role.brought(**data, cuda_toolkit_version="13.0")
        assert "cuda-toolkit-13-0" in held(hosts)
        assert hosts.ssh(HOST, "ls /etc/apt/*/farrier-* 2>/dev/null", check=False) == ""
    finally:
        hosts.root(HOST, "rm /etc/apt/sources.list.d/site.sources /etc/apt/keyrings/site.asc")


def test_a_key_that_another_source_needs_stays(role: Role, hosts: Fleet, packages: Depot) -> None:
    """The driver's source has the same one."""
    key, other = "/etc/apt/keyrings/farrier-nvidia.gpg", "/etc/apt/sources.list.d/other.sources"
    role.brought(**packages.data(), cuda_toolkit_version="13.0")
    hosts.put(HOST, other, f"Types: deb\nURIs: http://a/\nSuites: /\nSigned-By: {key}\n")
    try:
        role.removed(**packages.data())
        assert hosts.ssh(HOST, f"ls {key}") == f"{key}\n"
    finally:
        hosts.root(HOST, f"rm {other}")
    role.removed(**packages.data())
    assert hosts.ssh(HOST, f"ls {key} 2>/dev/null", check=False) == ""
