"""NVIDIA's functions on the bus, read by the real script from trees of sysfs."""

from __future__ import annotations

from pathlib import Path

import pytest

from farrier.facts.pci import NVIDIA, NvidiaPci, Pci, PciFunction, parse
from tests.unit.recorded.tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_an_hgx_with_eight_h100_and_four_nvswitches(tree: Tree) -> None:
    for number in range(8):
        address = f"0000:{0x10 + number:02x}:00.0"
        tree.pci(address, (NVIDIA, 0x2330), 0x0302, "nvidia", numa=number // 4)
    for number in range(4):
        tree.pci(f"0000:{0xA0 + number:02x}:00.0", (NVIDIA, 0x22A3), 0x0680, "nvidia-nvswitch")
    tree.pci("0000:00:1f.0", (0x8086, 0x1234), 0x0601)
    tree.pci("0000:90:00.0", (0x15B3, 0x1021), 0x0207, "mlx5_core").joinpath("vpd").write_text(
        "ConnectX-7 adapter"
    )
    found = tree.ask(Pci)
    assert len(found.gpus) == 8
    assert len(found.nvswitches) == 4
    assert found.nvlink_managers == ()
    assert found.gpus[7] == PciFunction("0000:17:00.0", NVIDIA, 0x2330, 0x0302, "nvidia", 1)


def test_an_hgx_b200_shows_managers_instead_of_nvswitches(tree: Tree) -> None:
    tree.pci("0000:1b:00.0", (NVIDIA, 0x2901), 0x0302, "nvidia")
    at = tree.pci("0000:05:00.0", (0x15B3, 0x1021), 0x0207, "mlx5_core")
    at.joinpath("vpd").write_bytes(b"\x82\x20\x00NVIDIA\x00SMDL V0 SW_MNG\x79")
    found = tree.ask(Pci)
    assert [one.address for one in found.nvlink_managers] == ["0000:05:00.0"]
    assert found.nvswitches == ()
    assert len(found.gpus) == 1


def test_who_drives_a_gpu(tree: Tree) -> None:
    tree.pci("0000:01:00.0", (NVIDIA, 0x1B38), 0x0302, "nouveau", numa=-1)
    tree.pci("0000:02:00.0", (NVIDIA, 0x2684), 0x0300, "vfio-pci")
    tree.pci("0000:02:00.1", (NVIDIA, 0x22BA), 0x0403, "snd_hda_intel")
    tree.pci("0000:03:00.0", (NVIDIA, 0x2B85), 0x0300)
    found = tree.ask(Pci)
    assert [one.driver for one in found.gpus] == ["nouveau", "vfio-pci", ""]
    assert found.gpus[0].numa is None
    assert len(found.functions) == 4


def test_a_machine_without_a_bus(tree: Tree) -> None:
    assert tree.ask(Pci) == NvidiaPci()


def test_functions_that_vanish_while_one_looks(tree: Tree) -> None:
    at = tree.pci("0000:01:00.0", (NVIDIA, 0x2330), 0x0302, "nvidia")
    at.joinpath("numa_node").unlink()
    at.joinpath("class").unlink()
    tree.link("sys/bus/pci/devices/0000:09:00.0", "gone")
    assert tree.ask(Pci) == NvidiaPci()


@pytest.mark.parametrize(
    "line",
    ["", "function", "function x y z", "function 0000:01:00.0 0x10de 0xzz 0x030200 0 nvidia"],
)
def test_lines_that_are_none(line: str) -> None:
    assert parse([line]) == NvidiaPci()
