"""IOMMU, ACS, memory, clock, disks and firewalls: by the real script, and from recordings."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from farrier.facts.firewall import Firewall, parse_firewall
from farrier.facts.machine import Machine, MachineFacts, parse
from farrier.facts.pci import NVIDIA
from tests.unit.recorded import HERE, lines_of
from tests.unit.recorded.tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def config(*capabilities: tuple[int, int]) -> bytes:
    """A configuration space of 4 KiB with extended *capabilities*: id and control register."""
    space = bytearray(4096)
    for number, (identity, control) in enumerate(capabilities):
        at = 256 + 64 * number
        following = at + 64 if number + 1 < len(capabilities) else 0
        struct.pack_into("<IHH", space, at, identity | 1 << 16 | following << 20, 0x5F, control)
    return bytes(space)


def bridge(tree: Tree, path: str, space: bytes) -> None:
    at = f"sys/devices/pci0000:00/{path}"
    tree.write(f"{at}/class", "0x060400\n")
    tree.write(f"{at}/config", space)


AER, ACS, SERIAL = 0x01, 0x0D, 0x03


def test_bridges_above_gpus_that_redirect(tree: Tree) -> None:
    bridge(tree, "0000:00:01.0", config((AER, 0xFFFF), (ACS, 0x001D)))
    bridge(tree, "0000:00:01.0/0000:01:00.0", config((SERIAL, 0), (AER, 0), (ACS, 0x0011)))
    bridge(tree, "0000:00:02.0", config((AER, 0)))
    bridge(tree, "0000:00:03.0", config((ACS, 0x001D)))  # above a network card only
    tree.pci("0000:02:00.0", (NVIDIA, 0x2330), 0x0302, below="0000:00:01.0/0000:01:00.0")
    tree.pci("0000:03:00.0", (NVIDIA, 0x2330), 0x0302, below="0000:00:02.0")
    tree.pci("0000:04:00.0", (0x15B3, 0x1021), 0x0207, below="0000:00:03.0")
    assert tree.ask(Machine, paths=()).acs == ("0000:00:01.0",)


def test_a_configuration_space_that_cannot_be_read_or_runs_in_circles(tree: Tree) -> None:
    circle = bytearray(config((AER, 0)))
    struct.pack_into("<I", circle, 256, AER | 1 << 16 | 256 << 20)
    bridge(tree, "0000:00:01.0", config((ACS, 0x001D))[:64])  # what others than root are shown
    bridge(tree, "0000:00:01.0/0000:01:00.0", bytes(circle))
    tree.pci("0000:02:00.0", (NVIDIA, 0x2330), 0x0302, below="0000:00:01.0/0000:01:00.0")
    assert tree.ask(Machine, paths=()).acs == ()


@pytest.mark.parametrize(
    ("gpu", "other", "iommu"),
    [
        ("identity", "DMA", "passthrough"),
        ("DMA-FQ", "identity", "translated"),
        (None, "DMA", "translated"),
        (None, "identity", "passthrough"),
        (None, None, "off"),
        ("blocked", None, None),
    ],
)
def test_the_iommu_is_that_of_the_gpus(
    tree: Tree, gpu: str | None, other: str | None, iommu: str | None
) -> None:
    (tree.root / "sys/kernel/iommu_groups").mkdir(parents=True)
    for number, kind in enumerate((gpu, other)):
        if kind:
            tree.write(f"sys/kernel/iommu_groups/{number}/type", f"{kind}\n")
    if gpu:
        at = tree.pci("0000:01:00.0", (NVIDIA, 0x2330), 0x0302)
        tree.link(
            str(at.relative_to(tree.root) / "iommu_group"),
            tree.root / "sys/kernel/iommu_groups/0",
        )
    assert tree.ask(Machine, paths=()).iommu == iommu


def test_memory_pages_clock_and_disks(tree: Tree) -> None:
    tree.write(
        "proc/meminfo",
        "MemTotal:       2113407128 kB\nMemFree: 1 kB\nHugePages_Total:    1024\n"
        "HugePages_Free: 3\nHugepagesize:       2048 kB\n",
    )
    tree.write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
    tree.prints("timedatectl", "yes\n")
    absent = f"{tree.root}/not/there yet"
    found = tree.ask(Machine, paths=(str(tree.root), absent))
    assert found.memory_mb == 2113407128 // 1024
    assert (found.hugepages, found.hugepage_kb) == (1024, 2048)
    assert found.transparent_hugepages == "madvise"
    assert found.clock_synchronized is True
    assert found.host_time is not None
    assert found.host_time > 1.7e9
    assert found.disks[absent] == pytest.approx(found.disks[str(tree.root)], abs=100)
    assert set(found.disks) == {str(tree.root), absent}


def test_a_machine_of_which_nothing_is_known(tree: Tree) -> None:
    found = tree.ask(Machine, paths=())
    assert found == MachineFacts(host_time=found.host_time)


def test_a_clock_that_nobody_can_vouch_for(tree: Tree) -> None:
    tree.program("timedatectl", "echo 'Failed to connect to bus' >&2; exit 1")
    assert tree.ask(Machine, paths=()).clock_synchronized is None


OPEN_PORTS = {22, 80, 443, 8080, 9100, 9101, 9102}


@pytest.mark.parametrize(
    ("folder", "firewall"),
    [
        (
            "debian12-nftables",
            Firewall("nftables", True, frozenset({*OPEN_PORTS, 9810}), ("192.168.7.0/24", "wg0")),
        ),
        ("ubuntu2204-iptables", Firewall("iptables", True, frozenset(OPEN_PORTS), ("10.0.0.0/8",))),
        ("ubuntu2404-iptables", Firewall("iptables", True, frozenset(OPEN_PORTS), ("10.0.0.0/8",))),
        (
            "ubuntu2204-ufw",
            Firewall("ufw", True, frozenset({*OPEN_PORTS, 2222} - {80}), ("10.0.0.0/8", "eth1")),
        ),
        (
            "ubuntu2404-ufw",
            Firewall("ufw", True, frozenset({*OPEN_PORTS, 2222} - {80}), ("10.0.0.0/8", "eth1")),
        ),
        ("debian12", Firewall()),
        ("ubuntu2404", Firewall()),
    ],
)
def test_firewalls_that_were_recorded(folder: str, firewall: Firewall) -> None:
    assert parse(lines_of(HERE / folder / "machine.txt")).firewall == firewall


@pytest.mark.parametrize(
    ("lines", "firewall"),
    [
        (["iptables *filter", "iptables :INPUT ACCEPT [0:0]"], Firewall()),
        (
            ["iptables *filter", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT",
             "iptables -A INPUT -j REJECT --reject-with icmp-host-prohibited"],
            Firewall("iptables", True, frozenset({22})),
        ),
        (
            ["iptables *filter", "iptables :INPUT DROP [0:0]",
             "iptables -A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80"
             " -j ACCEPT"],
            Firewall("iptables", True),
        ),
        (["iptables *nat", "iptables :INPUT DROP [0:0]"], Firewall()),
        (["ufw ENABLED=yes", 'ufw DEFAULT_INPUT_POLICY="ACCEPT"'], Firewall("ufw", False)),
        (["ufw ENABLED=no", "ufw tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in"], Firewall()),
        (
            ["iptables *filter", "iptables :INPUT ACCEPT [0:0]",
             "iptables -A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd",
             'nft {"nftables": [{"chain": {"family": "inet", "table": "t", "name": "i", "type":'
             ' "filter", "hook": "input", "policy": "drop"}}]}'],
            Firewall("nftables", True),
        ),
        (["nft {"], Firewall()),
        (["nft []"], Firewall()),
        (['nft {"nftables": [{"chain": 3}, 4, {"rule": {"expr": 5}}]}'], Firewall()),
        (
            ['nft {"nftables": [{"chain": {"family": "ip", "table": "t", "name": "i", "type":'
             ' "filter", "hook": "input", "policy": "accept"}}, {"rule": {"family": "ip", "table":'
             ' "t", "chain": "i", "expr": [{"counter": null}, {"drop": null}]}}]}'],
            Firewall("nftables", True),
        ),
    ],
)  # fmt: skip
def test_firewalls_from_lines(lines: list[str], firewall: Firewall) -> None:
    assert parse_firewall(lines) == firewall


def test_the_firewall_of_a_tree(tree: Tree) -> None:
    tree.write("etc/ufw/ufw.conf", "# /etc/ufw/ufw.conf\nENABLED=yes\nLOGLEVEL=low\n")
    tree.write("etc/default/ufw", 'IPV6=yes\nDEFAULT_INPUT_POLICY="DROP"\n')
    tree.write(
        "etc/ufw/user.rules",
        "*filter\n### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 OpenSSH - in\n"
        "-A ufw-user-input -p tcp --dport 22 -j ACCEPT\n",
    )
    assert tree.ask(Machine, paths=()).firewall == Firewall("ufw", True, frozenset({22}))
