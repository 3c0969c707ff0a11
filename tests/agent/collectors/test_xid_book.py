"""The book of XIDs: bounded, and each fault once."""

from __future__ import annotations

from itertools import pairwise

import pytest
from farrier_agent.collectors.kernel_log import MAX_TEXT
from farrier_agent.collectors.xid_book import (
    APART,
    MAX_ALIKE,
    MAX_KINDS,
    MAX_RECENT,
    Book,
    addresses,
)
from farrier_agent.gpus import Gpu, Gpus, XidEvent
from hypothesis import given
from hypothesis import strategies as st

C1 = "00000000:C1:00.0"
RESET = "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"


def line(
    number: int, at: float, pci: str | None = C1, text: str = "", action: str | None = None
) -> XidEvent:
    return XidEvent(
        at=at, xid=number, pci_bus_id=pci, source="kmsg", text=text, recovery_action=action
    )


def nvml(number: int, at: float, pci: str | None = C1) -> XidEvent:
    return XidEvent(at=at, xid=number, pci_bus_id=pci, uuid="GPU-1", source="nvml")


# what is told, and how often it counts
STORIES: list[tuple[str, list[XidEvent], int]] = [
    ("the same again at once", [line(79, 1.0), line(79, 1.0), line(79, 5.9)], 1),
    ("the same again later", [line(79, 1.0), line(79, 6.1)], 2),
    ("a fault each second", [line(31, at / 1.0) for at in range(12)], 2),
    ("from both", [line(48, 1.0), nvml(48, 2.0)], 1),
    ("from both, NVML first", [nvml(48, 1.0), line(48, 2.0)], 1),
    ("from both, NVML's clock is behind", [line(48, 5.0), nvml(48, 1.0)], 1),
    ("from NVML with an address of other case", [line(48, 1.0), nvml(48, 1.0, "0000:c1:00.0")], 1),
    ("of two GPUs", [line(31, 1.0), line(31, 1.0, "00000000:18:00.0")], 2),
    ("two XIDs", [line(31, 1.0), line(45, 1.0)], 2),
    ("noise", [line(0, 1.0), nvml(0, 1.0)], 0),
    (
        "another action to take",
        [line(154, 1.0, action="gpu_reset"), line(154, 2.0, action="node_reboot")],
        2,
    ),
    (
        "the same action",
        [line(154, 1.0, action="gpu_reset"), line(154, 2.0, action="gpu_reset")],
        1,
    ),
    ("NVML knows no action", [line(154, 1.0, action="gpu_reset"), nvml(154, 1.5)], 1),
    ("an action that NVML did not know", [nvml(154, 1.0), line(154, 1.5, action="gpu_reset")], 1),
    ("it became fatal", [line(149, 1.0, text="Nonfatal"), line(149, 1.0, text="Fatal")], 2),
    ("the rest of a fatal one", [line(20009, 1.0, text="Fatal"), line(20009, 1.0, text="Data")], 1),
]


@pytest.mark.parametrize(
    ("events", "count"), [one[1:] for one in STORIES], ids=[one[0] for one in STORIES]
)
def test_stories(events: list[XidEvent], count: int) -> None:
    book = Book()
    for event in events:
        book.add(event)
    assert sum(one.count for one in book.counts()) == count
    assert len(book.recent()) == count


def test_a_flood_of_one_leaves_the_others() -> None:
    book = Book()
    book.add(line(79, 1.0))
    for at in range(10_000):
        book.add(line(31, 10.0 * at))
    recent = book.recent()
    assert [one.xid for one in recent].count(79) == 1
    assert len(recent) == 1 + MAX_ALIKE
    assert recent[-1].at == 99_990.0


def test_many_floods_leave_the_others() -> None:
    book = Book()
    book.add(line(79, 1.0))
    for at in range(30):
        for number in range(100, 115):
            book.add(line(number, 10.0 + 10.0 * at))
    recent = book.recent()
    assert len(recent) == MAX_RECENT
    assert recent[0].xid == 79


def test_there_is_an_end_to_everything() -> None:
    book = Book()
    for number in range(1, 3 * MAX_KINDS):
        book.add(line(number, float(number), text="x" * 10_000))
    assert len(book.kept()) == MAX_KINDS
    assert book.dropped == 2 * MAX_KINDS - 1
    recent = book.recent()
    assert len(recent) == MAX_RECENT
    assert recent[-1].xid == 3 * MAX_KINDS - 1
    assert all(len(one.text) == MAX_TEXT for one in recent)


def test_those_of_no_known_gpu_are_one_series() -> None:
    book = Book()
    for bus in ("18", "2A", "C1"):
        book.add(line(31, float(int(bus, 16)), f"00000000:{bus}:00.0"))
    (one,) = book.counts()
    assert (one.uuid, one.xid, one.count, one.pci_bus_id) == ("", 31, 3, C1)
    book.learn({C1: "GPU-1"})
    assert [(one.uuid, one.count) for one in book.counts()] == [("", 2), ("GPU-1", 1)]


def test_a_board_that_was_exchanged_keeps_its_counts_to_itself() -> None:
    book = Book()
    book.learn({C1: "GPU-old"})
    book.add(line(79, 1.0))
    book.learn({C1: "GPU-new"})
    book.add(line(79, 100.0))
    assert [(one.uuid, one.count) for one in book.counts()] == [("GPU-new", 1), ("GPU-old", 1)]


def test_the_gpu_that_answers_has_the_slot() -> None:
    devices = (
        Gpu(uuid="GPU-new", index=0, up=True, pci_bus_id="0000:c1:00.0"),
        Gpu(uuid="GPU-old", index=0, up=False, problem="gone", pci_bus_id=C1),
        Gpu(uuid="GPU-x", index=1, up=True),
    )
    assert addresses(Gpus(count=2, devices=devices)) == {C1: "GPU-new"}


EVENTS = st.lists(
    st.builds(
        XidEvent,
        at=st.floats(0, 60),
        xid=st.integers(-1, 4) | st.just(154),
        pci_bus_id=st.sampled_from([None, C1, "00000000:18:00.0", "0000:18:00", "junk"]),
        uuid=st.sampled_from([None, "GPU-1"]),
        source=st.sampled_from(["kmsg", "nvml"]),
        text=st.sampled_from(["", "Fatal"]),
        recovery_action=st.sampled_from([None, "gpu_reset"]),
    ),
    max_size=30,
)


@given(EVENTS, st.integers(0, 30))
def test_a_restart_at_any_moment_changes_nothing(events: list[XidEvent], at: int) -> None:
    whole, parts = Book(), Book()
    for number, event in enumerate(events):
        if number == at:
            parts = Book(parts.kept(), parts.recent())
        assert whole.add(event) == parts.add(event)
        assert whole.counts() == parts.counts()
    assert sorted(whole.recent(), key=repr) == sorted(parts.recent(), key=repr)
    assert sum(one.count for one in whole.counts()) == len(whole.recent())
    keys = [(one.uuid, one.xid) for one in whole.counts()]
    assert len(keys) == len(set(keys))


@given(EVENTS)
def test_two_that_count_are_apart_or_differ(events: list[XidEvent]) -> None:
    book = Book()
    for event in events:
        book.add(event)
    plain = [one for one in book.recent() if not one.text and one.recovery_action is None]
    for kind in {(one.pci_bus_id or one.uuid, one.xid) for one in plain}:
        times = [one.at for one in plain if (one.pci_bus_id or one.uuid, one.xid) == kind]
        assert all(b - a > APART for a, b in pairwise(times))
