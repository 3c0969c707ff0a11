"""Role nvidia_container_toolkit with stand-in packages, real apt, systemd and containerd.

No driver can be loaded on a lab's host: a file stands for /proc/driver/nvidia/version.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.roles.converging import Converge
from tests.roles.fleet import Fleet, until
from tests.toolkits.conftest import Role
from tests.toolkits.standins import DRIVER, Depot

HOST = "gpu01"
PACKAGES = {
    "libnvidia-container-tools",
    "libnvidia-container1",
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
}
SOURCE = "/etc/apt/sources.list.d/farrier-nvidia-container.sources"


@pytest.fixture
def role(hosts: Fleet, converge: Converge) -> Iterator[Role]:
    it = Role("nvidia_container_toolkit", HOST, converge)
    yield it
    it.removed()
    hosts.root(HOST, f"rm -rf {DRIVER} /dev/nvidia0 /dev/char/195:0 /var/log/standin-ctk")
    hosts.root(HOST, "apt-get -q -y purge containerd runc; rm -rf /etc/containerd", check=False)
    hosts.root(HOST, "apt-get clean")  # apt takes what it has downloaded by name and size


@pytest.fixture
def wanted(packages: Depot) -> dict[str, object]:
    return {
        **packages.data(),
        "nvidia_container_toolkit": True,
        "nvidia_container_toolkit_version": "1.17.8",
        "arguments": {"proc": DRIVER.removesuffix("/driver/nvidia/version")},
    }


def versions(hosts: Fleet) -> dict[str, str]:
    """Of the packages that are installed and configured."""
    lines = hosts.ssh(
        HOST,
        "dpkg-query -W -f '${db:Status-Abbrev}${Package} ${Version}\\n' '*nvidia-container*'"
        " 2>/dev/null",
        check=False,
    )
    return dict(line[3:].split() for line in lines.splitlines() if line[1] == "i")


def held(hosts: Fleet) -> set[str]:
    return set(hosts.ssh(HOST, "apt-mark showhold").split())


def load_driver(hosts: Fleet, version: str) -> None:
    """As far as a file and a device node go."""
    said = (
        f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Tue Sep 16 20:52:45 UTC 2025\n"
    )
    hosts.put(HOST, DRIVER, said)
    hosts.root(HOST, "[ -e /dev/nvidia0 ] || mknod -m 666 /dev/nvidia0 c 195 0")


def spec(hosts: Fleet, path: str) -> str:
    return (
        hosts.ssh(HOST, f"cat {path} 2>/dev/null", check=False).rpartition("libcuda.so.")[2].strip()
    )


def test_it_is_off_unless_asked_for(role: Role, packages: Depot) -> None:
    assert role.brought(**packages.data()).operations == []


def test_packages_are_held_at_their_version(
    role: Role, hosts: Fleet, wanted: dict[str, object]
) -> None:
    role.brought(**wanted)
    assert versions(hosts) == dict.fromkeys(PACKAGES, "1.17.8-1")
    assert held(hosts) == PACKAGES
    assert "Inst " not in hosts.root(HOST, "apt-get -s dist-upgrade | grep nvidia ||:")
    assert "create-dev-char-symlinks" in hosts.root(HOST, "cat /etc/udev/rules.d/71-farrier-*")
    assert spec(hosts, "/etc/cdi/nvidia.yaml") == "", "no driver is loaded"

    role.brought(**wanted | {"nvidia_container_toolkit_version": None})
    assert set(versions(hosts).values()) == {"1.17.8-1"}, "what is there stays"
    role.brought(**wanted | {"nvidia_container_toolkit_version": "1.18.0-1"})
    assert versions(hosts) == dict.fromkeys(PACKAGES, "1.18.0-1")
    assert held(hosts) == PACKAGES
    told = ("asks for 1.16.2", "apt offers 1.18.0-1, 1.17.8-1", "nvidia_container_toolkit_version")
    role.refused(*told, **wanted | {"nvidia_container_toolkit_version": "1.16.2"})
    role.brought(**wanted)
    assert set(versions(hosts).values()) == {"1.17.8-1"}, "and back"

    role.removed(**wanted)
    assert (versions(hosts), held(hosts)) == ({}, set())
    left = (
        "/etc/apt/*/farrier-* /etc/apt/keyrings/farrier-* /etc/udev/rules.d/71-farrier-* /etc/cdi/*"
    )
    assert hosts.ssh(HOST, f"ls -d {left} 2>/dev/null", check=False) == ""


def test_a_specification_names_the_loaded_driver(
    role: Role, hosts: Fleet, wanted: dict[str, object]
) -> None:
    load_driver(hosts, "580.82.07")
    role.brought(**wanted)
    assert spec(hosts, "/etc/cdi/nvidia.yaml") == "580.82.07"
    assert hosts.ssh(HOST, "readlink /dev/char/195:0") == "/dev/nvidia0\n"
    load_driver(hosts, "580.95.05")
    role.brought(**wanted)
    assert spec(hosts, "/etc/cdi/nvidia.yaml") == "580.95.05"

    # From 1.18 on the toolkit makes one by itself; the older one beside it is kept true.
    newer = wanted | {"nvidia_container_toolkit_version": "1.18.0"}
    role.brought(**newer)
    load_driver(hosts, "590.48.01")
    role.brought(**newer)
    assert spec(hosts, "/etc/cdi/nvidia.yaml") == "590.48.01"
    assert spec(hosts, "/run/cdi/nvidia.yaml") == "590.48.01"
    hosts.root(HOST, "rm /etc/cdi/nvidia.yaml /run/cdi/nvidia.yaml")
    role.brought(**newer)
    assert spec(hosts, "/etc/cdi/nvidia.yaml") == ""
    assert spec(hosts, "/run/cdi/nvidia.yaml") == "590.48.01"


def test_links_come_before_the_packages(
    role: Role, hosts: Fleet, wanted: dict[str, object]
) -> None:
    """Their installation reloads systemd, which takes unlinked nodes away from containers."""
    load_driver(hosts, "580.95.05")
    role.refused("1.16.2", **wanted | {"nvidia_container_toolkit_version": "1.16.2"})
    assert versions(hosts) == {}
    assert hosts.ssh(HOST, "readlink /dev/char/195:0") == "/dev/nvidia0\n"


def test_a_container_engine_is_told_and_not_restarted(
    role: Role, hosts: Fleet, wanted: dict[str, object]
) -> None:
    with_docker = wanted | {"nvidia_container_runtimes": ["docker"]}
    role.refused("names docker, which this host has not", **with_docker)
    role.refused("podman is none of", **wanted | {"nvidia_container_runtimes": ["podman"]})

    install = "env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends"
    hosts.root(HOST, f"apt-get -q update && {install} containerd")
    active = partial(hosts.unit, HOST, "containerd", "ActiveState")
    until(lambda: active() == "active", 20, "containerd runs")
    before = hosts.unit(HOST, "containerd", "MainPID")
    data = wanted | {"nvidia_container_runtimes": ["containerd"]}
    for run in (role.brought(**data), role.run(**data)):
        pending = run.last_section("Left to you")
        assert "containerd does not know NVIDIA's runtime yet" in pending, run.last_words()
        assert "sudo systemctl restart containerd" in pending
    assert hosts.unit(HOST, "containerd", "MainPID") == before
    hosts.root(HOST, "systemctl restart containerd")
    run = role.brought(**data)
    assert run.last_section("Left to you") == ""


def test_half_an_installation_is_finished(
    role: Role, hosts: Fleet, wanted: dict[str, object]
) -> None:
    role.brought(**wanted)
    hosts.root(
        HOST,
        "apt-mark unhold nvidia-container-toolkit && cd /tmp &&"
        " apt-get -q download nvidia-container-toolkit-base=1.18.0-1 &&"
        " dpkg --unpack nvidia-container-toolkit-base_1.18.0-1_amd64.deb; rm -f /tmp/nvidia-*.deb",
    )
    assert len(versions(hosts)) < 4
    role.brought(**wanted)
    assert versions(hosts) == dict.fromkeys(PACKAGES, "1.17.8-1")
    assert held(hosts) == PACKAGES


BAD_KEYS = {
    "wrong": ["serves", "the inventory says", "was not made known to apt"],
    "forged": ["is not signed by the key", "was not made known to apt"],
    "expired": ["has expired", "was not made known to apt"],
}


@pytest.mark.parametrize("kind", BAD_KEYS)
def test_a_repository_with_a_bad_key_never_becomes_apts(
    role: Role, hosts: Fleet, packages: Depot, wanted: dict[str, object], kind: str
) -> None:
    data = wanted | packages.data(kind)
    if kind == "expired":
        data["nvidia_container_repo_fingerprint"] = packages.fingerprints[kind]
    role.refused(*BAD_KEYS[kind], **data)
    assert versions(hosts) == {}
    assert hosts.ssh(HOST, f"ls {SOURCE} 2>/dev/null", check=False) == ""
    hosts.root(HOST, "apt-get -q update -o APT::Update::Error-Mode=any")
