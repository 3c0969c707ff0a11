"""A GPU that is lost is said to be lost, and keeps its name and its number."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from farrier_agent.collectors.known import MAX_KNOWN, Known, merged
from farrier_agent.gpus import Gpu, Gpus
from hypothesis import given
from hypothesis import strategies as st

from tests.agent.collectors.boards import NOW, Shown, address, bus, enumerated, gpu, shown


def known(*numbers: int) -> dict[str, Known]:
    return merged({}, enumerated(*numbers), bus(*numbers), wanted={}, now=NOW).known


UP = None
# what NVML enumerates (None: cannot be read), what the bus has, and what is said of GPUs 0 to 3
CASES: list[tuple[str, Gpus | None, frozenset[str] | None, Shown | None]] = [
    (
        "all there",
        enumerated(0, 1, 2, 3),
        bus(0, 1, 2, 3),
        [(0, "0", UP), (1, "1", UP), (2, "2", UP), (3, "3", UP)],
    ),
    (
        "one left the bus: the others keep their numbers",
        enumerated(0, 2, 3),
        bus(0, 2, 3),
        [(0, "0", UP), (1, "1", "gone"), (2, "2", UP), (3, "3", UP)],
    ),
    (
        "one that only the bus has",
        enumerated(1, 2, 3),
        bus(0, 1, 2, 3),
        [(0, "0", "unseen"), (1, "1", UP), (2, "2", UP), (3, "3", UP)],
    ),
    (
        "the bus cannot be read: missing all the same",
        enumerated(0, 1),
        None,
        [(0, "0", UP), (1, "1", UP), (2, "2", "unseen"), (3, "3", "unseen")],
    ),
    (
        "none left",
        enumerated(),
        bus(3),
        [(0, "0", "gone"), (1, "1", "gone"), (2, "2", "gone"), (3, "3", "unseen")],
    ),
    ("NVML cannot be read, the bus has all", None, bus(0, 1, 2, 3), None),
    ("NVML cannot be read, the bus lost one", None, bus(0, 1, 3), [(2, "2", "gone")]),
    ("neither can be read", None, None, None),
    (
        "a reset gave them other indices",
        enumerated(3, 2, 1, 0),
        bus(0, 1, 2, 3),
        [(0, "3", UP), (1, "2", UP), (2, "1", UP), (3, "0", UP)],
    ),
    (
        "a new one, while another is missing, takes no number of theirs",
        Gpus(count=4, devices=(gpu(0), gpu(1), gpu(7, 2), gpu(3))),
        bus(0, 1, 3, 7),
        [(0, "0", UP), (1, "1", UP), (2, "2", "gone"), (3, "3", UP), (4, "7", UP)],
    ),
    (
        "an exchanged board: the old one is gone, though its slot is taken",
        Gpus(count=4, devices=(gpu(0), gpu(1), gpu(9, 2, slot=2), gpu(3))),
        bus(0, 1, 2, 3),
        [(0, "0", UP), (1, "1", UP), (2, "2", "gone"), (3, "3", UP), (4, "9", UP)],
    ),
]


@pytest.mark.parametrize(
    ("gpus", "functions", "wanted"), [one[1:] for one in CASES], ids=[one[0] for one in CASES]
)
def test_cases(gpus: Gpus | None, functions: frozenset[str] | None, wanted: Shown | None) -> None:
    found = merged(known(0, 1, 2, 3), gpus, functions, wanted={}, now=NOW)
    assert shown(found.gpus) == wanted
    for one in found.gpus.devices if found.gpus else ():
        assert one.up == (one.problem is None)
        assert (one.name, one.serial) == ("NVIDIA H200", f"serial {one.uuid[4:]}")
        assert (one.problem_detail is None) == one.up
        assert (one.power_watts is None) == (not one.up)
        assert one.pci_bus_id is not None
        assert len(one.pci_bus_id) == 16
    if found.gpus is not None:
        assert found.gpus.count == (gpus.count if gpus else None)
    # and nobody is forgotten
    assert {"GPU-0", "GPU-1", "GPU-2", "GPU-3"} <= set(found.known)


def problems(
    memory: dict[str, Known],
    gpus: Gpus,
    functions: frozenset[str] | None,
    wanted: dict[str, Sequence[int]] | None = None,
) -> str:
    found = merged(memory, gpus, functions, wanted=wanted or {}, now=NOW).gpus
    assert found is not None
    return "\n".join(found.problems)


def test_a_first_start_on_a_broken_host() -> None:
    text = problems({}, enumerated(0, 1, 2), bus(0, 1, 2, 3), {"tiny": [0, 2], "big": [3]})
    assert (
        "replica big is given GPU 3, and this host has none of that index: NVML enumerates 3"
        in text
    )
    assert f"the PCI bus has an NVIDIA GPU at {address(3)} that NVML does not enumerate" in text
    assert "lspci -s 0000:13:00.0" in text
    assert "tiny" not in text


def test_what_is_missing_is_no_wrong_index() -> None:
    assert problems(known(0, 1, 2, 3), enumerated(0, 1), bus(0, 1), {"big": [2, 3]}) == ""


def test_one_that_gives_no_uuid_is_no_stranger_on_the_bus() -> None:
    assert problems({}, enumerated(0, nameless=1), bus(0, 1)) == ""
    found = merged(known(0, 1), enumerated(0, nameless=1), bus(0, 1), wanted={}, now=NOW).gpus
    assert found is not None
    assert found.devices[1].problem_detail == (
        "NVML does not have it among 2, of which 1 give no UUID; the PCI bus has it"
    )


def test_indices_are_read_again_when_all_are_back() -> None:
    memory = known(0, 1, 2)
    memory = merged(memory, enumerated(1, 2), bus(1, 2), wanted={}, now=NOW).known
    assert {one.uuid: one.index for one in memory.values()} == {"GPU-0": 0, "GPU-1": 1, "GPU-2": 2}
    memory = merged(memory, enumerated(2, 1, 0), bus(0, 1, 2), wanted={}, now=NOW).known
    assert {one.uuid: one.index for one in memory.values()} == {"GPU-0": 2, "GPU-1": 1, "GPU-2": 0}


def test_what_a_lost_gpu_does_not_tell_any_more_stays_known() -> None:
    lost = Gpus(count=1, devices=(Gpu(uuid="GPU-0", index=0, up=False, problem="lost"),))
    memory = merged(known(0), lost, bus(0), wanted={}, now=NOW + 9999).known
    assert memory["GPU-0"] == known(0)["GPU-0"]


def look(memory: dict[str, Known], *devices: Gpu, now: float) -> tuple[dict[str, Known], set[str]]:
    """What is known after *devices* were seen, and which GPUs are missing."""
    gpus = Gpus(count=len(devices), devices=devices)
    memory, found, _ = merged(memory, gpus, bus(0, 1, 2, 3), wanted={}, now=now)
    assert found is not None
    return memory, {one.uuid for one in found.devices if not one.up}


def test_an_exchange_that_was_taken_back_leaves_nobody_missing() -> None:
    memory, missing = look({}, gpu(0), gpu(1), now=NOW)
    memory, missing = look(memory, gpu(0), gpu(9, 1, slot=1), now=NOW + 60)
    assert missing == {"GPU-1"}
    memory, missing = look(memory, gpu(0), gpu(1), now=NOW + 120)
    assert (set(memory), missing) == ({"GPU-0", "GPU-1"}, set())


def test_a_board_that_was_put_into_anothers_slot_takes_nothing_back() -> None:
    memory, _ = look({}, gpu(0), gpu(1), now=NOW)
    memory, _ = look(memory, gpu(0), gpu(1), gpu(2), now=NOW + 60)
    for later in (120, 180):
        memory, missing = look(memory, gpu(0), gpu(1, 1, slot=2), now=NOW + later)
        assert missing == {"GPU-2"}


def test_when_it_was_seen_is_noted_each_hour() -> None:
    memory, gpus = known(0), enumerated(0)
    for later, noted in ((5.0, NOW), (3599.0, NOW), (3600.0, NOW + 3600.0), (-9.0, NOW - 9.0)):
        found = merged(memory, gpus, bus(0), wanted={}, now=NOW + later).known
        assert found["GPU-0"].last_seen_at == noted


LOOKS = st.lists(
    st.tuples(
        st.none() | st.lists(st.integers(0, 5), unique=True, max_size=6),
        st.none() | st.frozensets(st.integers(0, 5)),
    ),
    max_size=8,
)


@given(LOOKS)
def test_whatever_comes_and_goes(
    looks: list[tuple[list[int] | None, frozenset[int] | None]],
) -> None:
    memory: dict[str, Known] = {}
    ever: set[str] = set()
    for numbers, functions in looks:
        gpus = None if numbers is None else enumerated(*numbers)
        on_bus = None if functions is None else bus(*functions)
        memory, found, _ = merged(memory, gpus, on_bus, wanted={}, now=NOW)
        ever |= {f"GPU-{number}" for number in numbers or ()}
        assert set(memory) == ever
        if found is None:
            assert gpus is None
            continue
        indices = [one.index for one in found.devices]
        assert len(set(indices)) == len(indices)
        up = {one.uuid for one in found.devices if one.up}
        assert up == {f"GPU-{number}" for number in numbers or ()}
        if gpus is not None:
            assert {one.uuid for one in found.devices} == ever


def test_there_is_an_end_to_what_is_remembered() -> None:
    memory: dict[str, Known] = {}
    for number in range(2 * MAX_KNOWN):
        memory = merged(memory, enumerated(number), None, wanted={}, now=NOW + number).known
    assert len(memory) == MAX_KNOWN
    assert f"GPU-{2 * MAX_KNOWN - 1}" in memory
