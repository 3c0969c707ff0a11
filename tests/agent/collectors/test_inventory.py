"""A GPU that is lost is said to be lost, and keeps its name and its number."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from farrier_agent.collectors.inventory import MAX_KNOWN, Inventory, Known, merged
from farrier_agent.gpus import Gpu, Gpus
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_700_000_000.0


def address(number: int) -> str:
    return f"00000000:{number + 16:02X}:00.0"


def gpu(number: int, index: int | None = None, *, slot: int | None = None) -> Gpu:
    """GPU *number* of the host, as NVML tells it."""
    return Gpu(
        uuid=f"GPU-{number}",
        index=number if index is None else index,
        up=True,
        name="NVIDIA H200",
        serial=f"serial {number}",
        pci_bus_id=address(number if slot is None else slot).lower()[4:],  # as sysfs has it
        power_watts=70.0,
    )


def enumerated(*numbers: int, nameless: int = 0) -> Gpus:
    """NVML enumerates these, with indices of its own making."""
    devices = tuple(gpu(number, index) for index, number in enumerate(numbers))
    return Gpus(count=len(numbers) + nameless, driver_version="580.1", devices=devices)


def bus(*numbers: int) -> frozenset[str]:
    return frozenset(map(address, numbers))


def known(*numbers: int) -> dict[str, Known]:
    return merged({}, enumerated(*numbers), bus(*numbers), wanted={}, now=NOW).known


Shown = list[tuple[int, str, str | None]]


def shown(gpus: Gpus | None) -> Shown | None:
    """Index, number and problem of each."""
    if gpus is None:
        return None
    return [(one.index, one.uuid[4:], one.problem) for one in gpus.devices]


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
        memory, found = merged(memory, gpus, on_bus, wanted={}, now=NOW)
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


# the file


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work(), 30)

    asyncio.run(bounded())


def at(tmp_path: Path) -> Path:
    return tmp_path / "state" / "gpus.json"


def test_it_is_known_after_a_restart(tmp_path: Path) -> None:
    async def first() -> None:
        inventory = Inventory(at(tmp_path))
        await inventory.read(5.0)
        inventory.merge(enumerated(0, 1), bus(0, 1))
        await inventory.close()

    async def second() -> None:
        inventory = Inventory(at(tmp_path))
        await inventory.read(5.0)
        assert shown(inventory.merge(enumerated(1), bus(1))) == [(0, "0", "gone"), (1, "1", None)]
        assert not inventory.forget("GPU-1")  # it is here
        assert not inventory.forget("GPU-7")
        assert inventory.forget("GPU-0")
        assert shown(inventory.merge(enumerated(1), bus(1))) == [(0, "1", None)]
        await inventory.close()

    async def third() -> None:
        inventory = Inventory(at(tmp_path))
        await inventory.read(5.0)
        assert [one.uuid for one in inventory.known] == ["GPU-1"]

    run(first)
    run(second)
    run(third)


def test_one_that_left_the_bus_while_nvml_hangs_can_be_forgotten(tmp_path: Path) -> None:
    async def look() -> None:
        inventory = Inventory(at(tmp_path))
        assert "not read yet" in str(inventory.problem)
        await inventory.read(5.0)
        assert not inventory.problem
        inventory.merge(enumerated(0, 1), bus(0, 1))
        assert shown(inventory.merge(None, bus(1))) == [(0, "0", "gone")]
        assert not inventory.forget("GPU-1")
        assert inventory.forget("GPU-0")
        assert inventory.merge(None, bus(1)) is None
        await inventory.close()

    run(look)


def test_before_the_file_is_read_nothing_is_missing_and_nothing_overwritten(
    tmp_path: Path,
) -> None:
    path = at(tmp_path)
    path.mkdir(parents=True)  # cannot be read

    async def look() -> None:
        inventory = Inventory(path)
        await inventory.read(5.0)
        found = inventory.merge(enumerated(0), bus(0, 1))
        assert found is not None
        (problem,) = found.problems
        assert (
            problem
            == f"{path} cannot be read: Is a directory; a GPU that is missing cannot be told"
        )
        assert inventory.merge(None, bus()) is None
        path.rmdir()
        await inventory.read(5.0)
        found = inventory.merge(enumerated(0), bus(0))
        assert found is not None
        assert found.problems == ()
        await inventory.close()

    run(look)
    assert b"GPU-0" in path.read_bytes()


def test_it_is_written_when_it_changes_and_not_each_tick(tmp_path: Path) -> None:
    path = at(tmp_path)
    now = [NOW]

    async def look() -> None:
        inventory = Inventory(path, clock=lambda: now[0])
        await inventory.read(5.0)
        written = set()
        for _ in range(100):
            now[0] += 5.0
            inventory.merge(enumerated(0, 1), bus(0, 1))
            await asyncio.sleep(0.001)
            if path.exists():
                written.add(path.stat().st_ino)
        assert len(written) == 1
        await inventory.close()

    run(look)


@pytest.mark.parametrize("data", [b"", b"\xff", b'{"schema":1,"kept":[{"uuid":7}]}'])
def test_a_file_of_no_use_is_begun_anew(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    at(tmp_path).parent.mkdir()
    at(tmp_path).write_bytes(data)

    async def look() -> None:
        inventory = Inventory(at(tmp_path))
        await inventory.read(5.0)
        assert shown(inventory.merge(enumerated(0), bus(0))) == [(0, "0", None)]
        await inventory.close()

    run(look)
    assert "begun anew, for it is of no use" in caplog.text
    assert b"GPU-0" in at(tmp_path).read_bytes()


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from farrier_agent.collectors.inventory import Inventory
from farrier_agent.gpus import Gpu, Gpus

def kill(event, arguments):
    if event == "os.rename":
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    inventory = Inventory(Path(sys.argv[1]))
    await inventory.read(5.0)
    inventory.merge(Gpus(count=1, devices=(Gpu(uuid="GPU-new", index=0, up=True),)), None)
    await inventory.close()

sys.addaudithook(kill)
asyncio.run(main())
"""


def test_killed_between_write_and_rename_the_old_memory_stands(tmp_path: Path) -> None:
    path = at(tmp_path)

    async def first() -> None:
        inventory = Inventory(path)
        await inventory.read(5.0)
        inventory.merge(enumerated(0), bus(0))
        await inventory.close()

    run(first)
    before = path.read_bytes()
    argv = [sys.executable, "-c", KILLED, os.fspath(path)]
    assert subprocess.run(argv, check=False).returncode == -9
    assert path.read_bytes() == before
    assert b"GPU-new" in path.with_suffix(".new").read_bytes()
