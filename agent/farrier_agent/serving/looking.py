"""Looks at one replica, again and again, and tells its record: its unit, time, requests, load.

Once a second while it drains or its gate is being opened, else once a tick. What systemd says of
the unit is told at once, when it says so; here it is told again, for a record that could not be
written then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from farrier_agent.draining.events import GaveUp, Looked, Resumed, Ticked
from farrier_agent.draining.record import Phase, Record
from farrier_agent.engines import ENGINES, Load
from farrier_agent.loopback import asker
from farrier_agent.serving.counting import Count, Counter, busy
from farrier_agent.serving.life import Life, boottime, seen
from farrier_agent.serving.worker import Worker
from farrier_agent.vitals import read_load

if TYPE_CHECKING:
    from farrier_agent.serving.healing import Health
    from farrier_agent.units.watch import Units

__all__ = ["Looker"]

log = logging.getLogger("farrier-agent")

EVERY = 1.0
"""Seconds between two looks that count towards *drained* (drains.APART)."""
LOAD_SECONDS = 0.8
"""Seconds that an engine may take to tell its load."""


class Looker:
    """Looks at *life*, whose unit *units* knows. *tick* is seconds between two quiet looks.

    *told* is given each page of metrics that its engine tells, and None when it does not run.
    """

    def __init__(
        self,
        life: Life,
        units: Units,
        counter: Counter,
        health: Health,
        tick: float,
        *,
        told: Callable[[bytes | None], None] = lambda _: None,
    ) -> None:
        self.count = Count()
        self.in_flight: int | None = None
        """Requests in flight at the last look: the kernel's or the engine's, the larger one."""
        self._life = life
        self._units = units
        self._counter = counter
        self._health = health
        self._tick = tick
        self._told = told
        self._worker = Worker(f"looks at {life.name}")
        replica = life.replica
        self._ask = asker(replica.port)
        self._engine = ENGINES[replica.engine]
        self._resumed = False
        self._by_hand = False

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            await self._look()
            while (left := self._next(begun) - loop.time()) > 0:
                await self._life.news(left)

    def _next(self, begun: float) -> float:
        """When to look after the look that began at *begun*, by the loop's clock."""
        record = self._life.record
        if record is None or not _hurries(record):
            # in the same moment as all other replicas: the kernel's answer is then for all of them
            return (begun // self._tick + 1) * self._tick
        return begun + self._pause(record)

    def _pause(self, record: Record) -> float:
        drain = record.drain
        if record.phase is Phase.DRAINING and drain is not None and not drain.closed:
            return min(EVERY, max(0.0, drain.settle_ends - boottime()) + 0.01)
        return min(EVERY, self._tick)

    async def _look(self) -> None:
        life = self._life
        if not self._resumed:
            self._resumed = await life.try_to_tell(Resumed()) is not None
        unit = self._units.state(life.replica.unit)
        if unit is not None:
            await life.try_to_tell(seen(unit, self._units.asked(unit.name)))
        await life.retold()
        record = life.record
        if record is None:
            return
        self._warn_of_a_hand(record)
        if record.phase is Phase.DRAINING or record.gate == "opening":
            await life.try_to_tell(Ticked())
            record = life.record or record
        load = await self._count(record, exactly=_hurries(record))
        if record.counting or _is_forced(record):
            await life.try_to_tell(Looked(self.in_flight))
        await self._live(load)

    async def count_now(self) -> int | None:
        """The requests in flight now, for one who is about to drain or has just given up."""
        record = self._life.record
        if record is not None:
            await self._count(record, exactly=True)
        return self.in_flight

    async def _count(self, record: Record, *, exactly: bool) -> Load | None:
        """Count what is in flight, if there is an engine; what it tells of its load."""
        if not record.engine_runs:
            self.count, self.in_flight = Count(), None
            self._told(None)
            return None
        # the kernel first: a request that the engine finishes in between is counted, not lost
        look = self._counter.look if exactly else self._counter.glance
        self.count = await self._worker.do(look)
        load = await read_load(self._ask, self._engine, deadline=LOAD_SECONDS, told=self._told)
        self.in_flight = busy(self.count, load)
        return load

    def _warn_of_a_hand(self, record: Record) -> None:
        """Say it once when a gate is open that nobody but a person can have opened."""
        by_hand = record.gate == "closed" and bool(self._life.gate_open)
        if by_hand and not self._by_hand:
            log.warning(
                "replica %s: its gate was opened by hand, though it is %s: what it serves now may"
                " be cut; to close: farrier-agent drain %s",
                *(self._life.name, record.phase.value, self._life.name),
                extra={"replica": self._life.name, "cause": "gate"},
            )
        self._by_hand = by_hand

    async def _live(self, load: Load | None) -> None:
        """Whether the engine gets on with its work, and what to do when it does not."""
        verdict = await self._health.look(load)
        record = self._life.record
        if verdict is not None and verdict.state == "wedged" and record and record.counting:
            # it never will be drained: nobody waits for an engine that hangs
            await self._life.try_to_tell(GaveUp(f"its engine is wedged ({verdict.why})"))


def _hurries(record: Record) -> bool:
    """Somebody waits for what the next looks see."""
    return record.phase is Phase.DRAINING or record.gate == "opening" or _is_forced(record)


def _is_forced(record: Record) -> bool:
    """What it will cut is still being counted."""
    forced = record.drain is not None and record.drain.forced
    return forced and record.phase is Phase.DRAINED and record.engine_runs
