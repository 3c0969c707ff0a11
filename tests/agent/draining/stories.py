"""A replica to whom things happen, one after the other, on a clock that the test moves."""

from __future__ import annotations

from farrier_agent.draining.events import (
    DrainAsked,
    Event,
    GateOpened,
    Looked,
    ReadyAsked,
    StopBegan,
    Ticked,
    UnitSeen,
    WarmedUp,
)
from farrier_agent.draining.record import Asker, Drain, Now, Policy, Record, initial
from farrier_agent.draining.states import Action, Transition, transition

ANNA = Asker("uid 1000", "person", "new memory")


class Story:
    """``record`` is the replica now; ``done`` the actions since the last :meth:`since`."""

    def __init__(self, *, gate_open: bool = False) -> None:
        self.now = Now("boot1", 1000.0, 1_700_000_000.0)
        self.record: Record = initial("tiny", self.now, gate_open=gate_open)
        self.done: list[Action] = []
        self.last = Transition(self.record)

    def happens(self, *events: Event) -> Story:
        for event in events:
            self.last = transition(self.record, event, self.now)
            self.record = self.last.record
            self.done += self.last.actions
        return self

    def later(self, seconds: float) -> Story:
        now = self.now
        self.now = Now(now.boot_id, now.boot + seconds, now.epoch + seconds)
        return self

    def boots(self) -> Story:
        self.now = Now(self.now.boot_id + "+", 20.0, self.now.epoch + 60)
        return self

    def since(self) -> list[Action]:
        done, self.done = self.done, []
        return done

    def unit(
        self, active: str, sub: str, run: str | None = "run1", result: str = "success"
    ) -> Story:
        return self.happens(UnitSeen(active, sub, run, self.now.boot, result))

    def runs(self, run: str = "run1") -> Story:
        return self.unit("activating", "start-pre", run).unit("active", "running", run)

    def serves(self, run: str = "run1") -> Story:
        return self.runs(run).happens(WarmedUp(run), GateOpened(run))

    def drain(
        self,
        settle: float = 3.0,
        seconds: float = 900.0,
        policy: Policy = "extend",
        asker: Asker = ANNA,
    ) -> Story:
        return self.happens(DrainAsked(asker, settle, seconds, policy))

    def stop(self, seconds: float = 900.0, policy: Policy = "extend", cap: float = 1380.0) -> Story:
        return self.happens(StopBegan("run1", 0.0, seconds, policy, cap))

    def ready(self, asker: Asker = ANNA) -> Story:
        return self.happens(ReadyAsked(asker))

    def ticks(self) -> Story:
        return self.happens(Ticked())

    def looks(self, *counts: int | None, apart: float = 1.0) -> Story:
        for count in counts:
            self.later(apart).happens(Looked(count))
        return self

    def drained(self) -> Story:
        return self.drain(settle=0).looks(0, 0, 0)

    @property
    def state(self) -> str:
        return self.record.phase.value

    @property
    def the_drain(self) -> Drain:
        assert self.record.drain is not None
        return self.record.drain
