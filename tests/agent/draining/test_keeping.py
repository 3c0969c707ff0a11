"""Records and gates in step, also after a death between the two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from farrier_agent.draining.events import (
    DrainAsked,
    GateOpened,
    Resumed,
    StopBegan,
    UnitSeen,
    WarmedUp,
)
from farrier_agent.draining.keeping import Keeper
from farrier_agent.draining.record import Now, Phase
from farrier_agent.draining.states import Action
from farrier_agent.draining.store import Store, StoreError
from farrier_agent.gate import Gates

from tests.agent.draining.stories import ANNA


@dataclass
class House:
    """A state directory, a gate directory, and a clock that the test moves."""

    root: Path

    def __post_init__(self) -> None:
        self.now = Now("boot1", 1000.0, 1_700_000_000.0)
        (self.root / "open").mkdir()
        self.gates = Gates(self.root / "open")
        self.store = Store(self.root / "replicas")
        self.keeper = Keeper(self.store, self.gates, lambda: self.now)

    def unit(self, run: str = "run1", active: str = "active") -> UnitSeen:
        return UnitSeen(active, "running", run, self.now.boot)

    def warm(self) -> None:
        self.keeper.tell("tiny", self.unit())
        self.keeper.tell("tiny", WarmedUp("run1"))

    def serves(self) -> None:
        self.warm()
        self.keeper.open_gate("tiny", self.unit)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_warm_replica_is_opened_and_confirmed(house: House) -> None:
    house.warm()
    assert not house.gates.is_open("tiny")
    step = house.keeper.open_gate("tiny", house.unit)
    assert house.gates.is_open("tiny")
    assert step.record.gate == "open"
    assert house.store.load("tiny") == step.record


def test_an_engine_that_crashed_meanwhile_is_not_opened(house: House) -> None:
    house.warm()
    step = house.keeper.open_gate("tiny", lambda: house.unit("run2"))
    assert not house.gates.is_open("tiny")
    assert (step.record.phase, step.record.invocation_id) == (Phase.WARMING, "run2")
    assert Action.START_WARM_UP in step.actions


def test_an_opening_that_cannot_be_confirmed_is_taken_back_and_tried_again(house: House) -> None:
    house.warm()

    def lost() -> UnitSeen:
        assert house.gates.is_open("tiny")
        raise ConnectionError("the bus is gone")

    with pytest.raises(ConnectionError):
        house.keeper.open_gate("tiny", lost)
    assert not house.gates.is_open("tiny")
    step = house.keeper.tell("tiny", Resumed())
    assert Action.OPEN_GATE in step.actions
    assert house.keeper.open_gate("tiny", house.unit).record.gate == "open"


def test_an_opening_that_is_not_wanted_any_more_makes_no_file(house: House) -> None:
    house.warm()
    house.keeper.tell("tiny", DrainAsked(ANNA))
    house.keeper.open_gate("tiny", house.unit)
    assert not house.gates.is_open("tiny")


def test_a_drain_without_settling_closes_the_gate(house: House) -> None:
    house.serves()
    step = house.keeper.tell("tiny", DrainAsked(ANNA, settle=0))
    assert not house.gates.is_open("tiny")
    assert step.record.counting


def test_death_between_the_record_and_the_gate(house: House) -> None:
    house.serves()
    house.keeper.tell("tiny", DrainAsked(ANNA, settle=0))
    house.gates.open("tiny")  # as if the one that recorded this had died before it closed
    house.keeper.tell("tiny", Resumed())
    assert not house.gates.is_open("tiny")


def test_a_gate_closes_also_when_its_record_cannot_be_written(house: House) -> None:
    house.serves()
    (house.root / "replicas" / "tiny.new").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        house.keeper.tell("tiny", DrainAsked(ANNA, settle=0))
    assert house.gates.is_open("tiny"), "what was refused was not done"
    with pytest.raises(StoreError, match="cannot be written"):
        house.keeper.tell("tiny", StopBegan("run1"))
    assert not house.gates.is_open("tiny"), "nobody can refuse systemd"


def test_garbage_closes_the_gate_until_somebody_says_ready(house: House) -> None:
    house.serves()
    house.store.path("tiny").write_text('{"schema": 1')
    record = house.keeper.look("tiny")
    assert not house.gates.is_open("tiny")
    assert (record.phase, record.held) == (Phase.FAILED, True)
    assert "tiny.json" in record.reason
    assert (house.root / "replicas" / "tiny.bad").read_text() == '{"schema": 1'
    house.keeper.tell("tiny", house.unit())
    step = house.keeper.tell("tiny", WarmedUp("run1"))
    assert step.record.phase is Phase.DRAINED
    assert Action.OPEN_GATE not in step.actions


def test_a_lost_record_leaves_an_open_gate_open(house: House) -> None:
    house.serves()
    house.store.path("tiny").unlink()
    house.keeper.tell("tiny", Resumed())
    step = house.keeper.tell("tiny", house.unit())
    assert step.record.phase is Phase.READY
    assert house.gates.is_open("tiny")


def test_nothing_new_is_not_written_again(house: House) -> None:
    house.serves()
    before = house.store.path("tiny").stat()
    house.keeper.tell("tiny", house.unit())
    house.keeper.tell("tiny", GateOpened("run1"))
    assert house.store.path("tiny").stat() == before
