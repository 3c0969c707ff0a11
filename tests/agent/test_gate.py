"""When a gate may be opened, and that the files say so."""

from __future__ import annotations

from pathlib import Path

import pytest
from farrier_agent.gate import Gates, Opened, Step, decide
from farrier_agent.status import Unit


def unit(run: str | None = "run1", pid: int | None = 7, active: str = "active") -> Unit:
    return Unit(
        name="engine-tiny.service",
        load_state="loaded",
        active_state=active,
        sub_state="running",
        invocation_id=run,
        main_pid=pid,
    )


CONFIRMED = Opened("run1", 7, "confirmed")
OPENED = Opened("run1", 7, "opened")
BEGUN = Opened("run1", 7, "begun")


@pytest.mark.parametrize(
    ("now", "answering", "gate_open", "opened", "step"),
    [
        # an engine that answers, for the first time in this run
        (unit(), True, False, None, Step.OPEN),
        (unit("run2"), True, False, CONFIRMED, Step.OPEN),
        # not yet, or no more
        (unit(), False, False, None, Step.LEAVE),
        (unit(active="activating"), True, False, None, Step.LEAVE),
        (unit(active="reloading"), True, False, None, Step.LEAVE),
        (unit(active="failed", pid=None), True, False, None, Step.LEAVE),
        (unit(run=None), True, False, None, Step.LEAVE),
        # opened in this run already: an operator who closed it is not overruled
        (unit(), True, False, CONFIRMED, Step.LEAVE),
        (unit(), True, True, CONFIRMED, Step.LEAVE),
        # an open gate is never closed because its engine is away
        (unit(), False, True, CONFIRMED, Step.LEAVE),
        (unit(active="failed", pid=None), False, True, CONFIRMED, Step.LEAVE),
        (unit("run2"), False, True, CONFIRMED, Step.ADOPT),
        # open, and not by us
        (unit(), True, True, None, Step.ADOPT),
        (unit(), False, True, None, Step.ADOPT),
        (unit(active="inactive", pid=None), False, True, None, Step.LEAVE),
        (unit(), True, False, OPENED, Step.LEAVE),
        (unit("run2"), True, False, OPENED, Step.OPEN),
        # our own opening, to be confirmed by the same run or taken back
        (unit(), True, True, BEGUN, Step.CONFIRM),
        (unit(), False, True, BEGUN, Step.CONFIRM),
        (unit(), True, True, OPENED, Step.CONFIRM),
        (unit("run2", 8), True, True, BEGUN, Step.CLOSE_AGAIN),
        (unit("run2", 8), True, True, OPENED, Step.CLOSE_AGAIN),
        (unit(pid=8), True, True, BEGUN, Step.CLOSE_AGAIN),
        (unit(active="failed", pid=None), False, True, BEGUN, Step.CLOSE_AGAIN),
        (unit(active="deactivating"), True, True, BEGUN, Step.CLOSE_AGAIN),
        # killed between the record and the opening
        (unit(), True, False, BEGUN, Step.OPEN),
        (unit(), False, False, BEGUN, Step.LEAVE),
    ],
)
def test_the_next_step(
    now: Unit, answering: bool, gate_open: bool, opened: Opened | None, step: Step
) -> None:
    assert decide(now, answering=answering, gate_open=gate_open, opened=opened) is step


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    (tmp_path / "open").mkdir()
    return Gates(tmp_path / "open", tmp_path / "agent" / "opened.json")


def test_a_gate_is_an_empty_file_that_others_can_see(gates: Gates) -> None:
    assert gates.is_open("tiny") is False
    assert gates.open("tiny") is True
    assert gates.is_open("tiny") is True
    assert gates.path("tiny").read_bytes() == b""
    assert gates.path("tiny").stat().st_mode & 0o444 == 0o444
    assert gates.open("tiny") is False
    gates.close("tiny")
    gates.close("tiny")
    assert gates.is_open("tiny") is False


def test_a_gate_is_never_opened_through_a_link(gates: Gates, tmp_path: Path) -> None:
    gates.path("tiny").symlink_to(tmp_path / "elsewhere")
    assert gates.open("tiny") is False
    assert not (tmp_path / "elsewhere").exists()


def test_a_gate_below_something_that_is_no_directory_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "open").write_text("")
    assert Gates(tmp_path / "open", tmp_path / "record").is_open("tiny") is None


def test_the_record_is_read_back(gates: Gates) -> None:
    assert gates.recorded() == {}
    gates.record({"tiny": CONFIRMED, "other": BEGUN})
    assert gates.recorded() == {"tiny": CONFIRMED, "other": BEGUN}


def test_a_broken_record_says_which_file(gates: Gates, tmp_path: Path) -> None:
    gates.record({})
    (tmp_path / "agent" / "opened.json").write_text('{"tiny": 1}')
    with pytest.raises(ValueError, match=r"opened\.json"):
        gates.recorded()
