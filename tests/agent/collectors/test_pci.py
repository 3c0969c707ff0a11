"""GPUs on the PCI bus, from a sysfs tree as the kernel makes it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from farrier_agent.collectors.pci import PciCollector, PciError, functions, normalised
from hypothesis import given
from hypothesis import strategies as st

from tests.agent.collectors.bus import Bus


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("00000000:C1:00.0", "00000000:C1:00.0"),
        ("0000:c1:00.0", "00000000:C1:00.0"),
        ("PCI:0000:c1:00", "00000000:C1:00.0"),
        ("0000:C1:00", "00000000:C1:00.0"),
        ("10000:e1:00.1", "00010000:E1:00.1"),
        ("c1:00.0", None),
        ("0000:c1:00.8", None),
        ("0000:c1:00.0\n", None),
        ("0000:c1:00.0 ", None),
        ("", None),
    ],
)
def test_an_address_is_written_in_one_way(text: str, wanted: str | None) -> None:
    assert normalised(text) == wanted


@given(st.text(st.sampled_from("0c1:.PCI \n٣"), max_size=20) | st.text())
def test_whatever_is_asked_it_is_an_address_or_none(text: str) -> None:
    found = normalised(text)
    assert found is None or (len(found) == 16 and normalised(found) == found)


def test_which_functions_count(tmp_path: Path) -> None:
    bus = Bus(tmp_path)
    bus.add("0000:18:00.0", of="0x030200")
    bus.add("0000:01:00.0", of="0x030000", driver="nouveau")
    bus.add("10000:c1:00.0", of="0x030200")
    bus.add("0000:01:00.1", of="0x040300")  # its sound
    bus.add("0000:05:00.0", of="0x068000")  # an NVSwitch
    bus.add("0000:02:00.0", vendor="0x1002", of="0x030000")  # another maker's
    bus.add("0000:19:00.0", of="0x030200", driver="vfio-pci")  # a virtual machine has it
    bus.add("0000:18:00.4", of="0x030200", virtual=True)
    (bus.devices / "0000:1a:00.0").mkdir()  # being removed
    assert functions(tmp_path) == {
        "00000000:18:00.0",
        "00000000:01:00.0",
        "00010000:C1:00.0",
    }
    bus.remove("0000:18:00.0")
    assert "00000000:18:00.0" not in functions(tmp_path)


def test_a_bus_that_cannot_be_read_says_what_that_costs(tmp_path: Path) -> None:
    collector = PciCollector(tmp_path)
    with pytest.raises(PciError, match=r"No such file .*cannot be told from one that left the bus"):
        asyncio.run(collector.collect(5.0))


def test_a_host_with_many_devices_costs_little(tmp_path: Path) -> None:
    bus = Bus(tmp_path)
    for number in range(250):
        bus.add(f"0000:{number:02x}:00.0", vendor="0x8086", of="0x060400")
    for number in range(16):
        bus.add(f"0001:{number:02x}:00.0", of="0x030200")
    begun = time.process_time()
    assert len(functions(tmp_path)) == 16
    assert time.process_time() - begun < 0.1
