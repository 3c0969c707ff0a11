"""The life of one replica: its record is told of what happens, and what follows from that is done.

Everything here runs in the event loop; what may block is done by the replica's worker. Records and
gates are kept by :class:`.draining.keeping.Keeper`, under the lock that the program of
``ExecStop=`` takes too: whoever of the two is alive carries on.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from farrier_agent.config import AgentConfig, Replica
from farrier_agent.draining.events import Event, UnitSeen, WarmedUp, WarmUpFailed
from farrier_agent.draining.keeping import Keeper
from farrier_agent.draining.record import Phase, Record
from farrier_agent.draining.states import Action, Transition
from farrier_agent.draining.store import Store, StoreError
from farrier_agent.engines import ENGINES
from farrier_agent.gate import Gates
from farrier_agent.loopback import asker
from farrier_agent.serving.worker import Worker
from farrier_agent.units.state import UnitsError, UnitState
from farrier_agent.units.watch import Units
from farrier_agent.warmup import warm_up

__all__ = ["Life", "boottime", "seen"]

log = logging.getLogger("farrier-agent")

UNIT_SECONDS = 2.0
"""Seconds that systemd may take to say again how a unit is, before an opened gate is taken back."""


def boottime() -> float:
    """Seconds of CLOCK_BOOTTIME, as records have them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def seen(unit: UnitState, read_at: float) -> UnitSeen:
    """*unit*, which systemd was asked for at *read_at*, as the states are told of it."""
    return UnitSeen(
        active_state=unit.active_state,
        sub_state=unit.sub_state,
        invocation_id=unit.invocation_id,
        read_at=read_at,
        result=unit.result or "success",
    )


class Life:
    """One replica. *changed* is called whenever its record or its gate may be another one."""

    def __init__(
        self,
        replica: Replica,
        config: AgentConfig,
        units: Units,
        changed: Callable[[], None],
    ) -> None:
        self.replica = replica
        self.record: Record | None = None
        """As it was last seen; None before the first look."""
        self.problem: str | None = None
        """Why its record cannot be kept; None when it can."""
        self.warming: str | None = None
        """What its warm-up waits for."""
        self._config = config
        self._gates = Gates(Path(config.gate_dir))
        self._keeper = Keeper(Store(Path(config.records_dir)), self._gates)
        self._units = units
        self._changed = changed
        self._worker = Worker(f"replica {replica.name}")
        self._one_at_a_time = asyncio.Lock()
        self._turn = asyncio.Event()
        self._warm_up: asyncio.Task[None] | None = None
        self._outcome: WarmedUp | WarmUpFailed | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def name(self) -> str:
        """The replica's name."""
        return self.replica.name

    @property
    def gate_open(self) -> bool | None:
        """Its gate is open now; None when that cannot be seen."""
        return self._gates.is_open(self.name)

    @property
    def takes_requests(self) -> bool:
        """New requests may be sent to it."""
        ready = self.record is not None and self.record.phase is Phase.READY
        return ready and bool(self.gate_open)

    async def tell(self, event: Event) -> Transition:
        """Apply *event* and do what follows. Raises StoreError or OSError.

        Who asks may be cancelled meanwhile: what was begun is done all the same.
        """
        return await asyncio.shield(self._spawn(self._tell(event)))

    async def try_to_tell(self, event: Event) -> Transition | None:
        """The same; None where the record cannot be kept, which is said in :attr:`problem`."""
        try:
            return await self.tell(event)
        except (StoreError, OSError):
            return None

    def tell_soon(self, event: Event) -> None:
        """The same, later, for one who cannot wait."""
        self._spawn(self.try_to_tell(event))

    async def news(self, within: float) -> None:
        """Return when something about the replica changed, or after *within* seconds."""
        turn = asyncio.ensure_future(self._turn.wait())
        await asyncio.wait({turn}, timeout=within)
        turn.cancel()

    async def retold(self) -> None:
        """Tell again how the warm-up ended where the record could not take it."""
        if self._outcome is not None and await self.try_to_tell(self._outcome):
            self._outcome = None

    async def close(self) -> None:
        """Cancel what runs for it. Nothing is written any more after this, and no gate moved."""
        tasks = {*self._tasks, *([self._warm_up] if self._warm_up else [])}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # who asked may have left: then nobody else would look at it

    async def _tell(self, event: Event) -> Transition:
        async with self._one_at_a_time:
            step = await self._kept(partial(self._keeper.tell, self.name, event))
            if Action.OPEN_GATE in step.actions:
                await self._open()
            return step

    async def _kept(self, work: Callable[[], Transition]) -> Transition:
        """Do *work* on the record, then what follows for the warm-up."""
        try:
            step = await self._worker.do(work)
        except (StoreError, OSError) as error:
            self._complain(str(error))
            raise
        self._complain(None)
        self._took(step)
        return step

    def _took(self, step: Transition) -> None:
        changed = step.record != self.record
        self.record = step.record
        if step.log:
            extra = {"replica": self.name, "cause": step.record.phase.value}
            log.log(logging.getLevelName(step.level), "%s", step.log, extra=extra)
        if Action.STOP_WARM_UP in step.actions or Action.START_WARM_UP in step.actions:
            self._end_warm_up()
        if Action.START_WARM_UP in step.actions:
            run = step.record.invocation_id
            self._warm_up = asyncio.get_running_loop().create_task(self._warmed_up(run))
        if changed or step.log:
            self._wake()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await self._kept(
                partial(self._keeper.open_gate, self.name, partial(self._read_unit, loop))
            )
        except UnitsError as error:
            # taken back; the next look tries again
            self._complain(f"its gate cannot be opened: {error}")
        except (StoreError, OSError) as error:
            self._complain(f"its gate cannot be opened: {error}")
        self._wake()

    def _read_unit(self, loop: asyncio.AbstractEventLoop) -> UnitSeen:
        """The unit, read now, for the worker's thread. Raises UnitsError."""
        asked = boottime()
        reading = asyncio.run_coroutine_threadsafe(self._units.read(self.replica.unit), loop)
        try:
            return seen(reading.result(UNIT_SECONDS), asked)
        except concurrent.futures.TimeoutError:
            reading.cancel()
            raise UnitsError(f"systemd does not answer within {UNIT_SECONDS:g} s") from None

    async def _warmed_up(self, run: str | None) -> None:
        self.warming = None
        done = await warm_up(
            asker(self.replica.port),
            ENGINES[self.replica.engine],
            self.replica.model,
            deadline=self._config.warm_up_seconds,
            adapters=self.replica.adapters,
            say=self._warms,
        )
        self._outcome = WarmedUp(run) if done.why is None else WarmUpFailed(run, done.why)
        if done.why is None:
            steps = ", ".join(f"{one.title} {one.seconds:.1f} s" for one in done.done)
            self._say(f"warm after {done.seconds:.1f} s: {steps}")
        # not from here: what follows may be that this very task is cancelled
        self._spawn(self.retold())

    def _warms(self, text: str) -> None:
        self.warming = text
        self._wake()

    def _end_warm_up(self) -> None:
        if self._warm_up is not None:
            self._warm_up.cancel()
        self._warm_up = self._outcome = self.warming = None

    def _complain(self, problem: str | None) -> None:
        if problem and problem != self.problem:
            extra = {"replica": self.name, "cause": "record"}
            log.error("replica %s: %s", self.name, problem, extra=extra)
        if problem != self.problem:
            self.problem = problem
            self._wake()

    def _say(self, text: str) -> None:
        extra = {"replica": self.name, "cause": "warm-up"}
        log.info("replica %s: %s", self.name, text, extra=extra)

    def _wake(self) -> None:
        self._turn.set()
        self._turn = asyncio.Event()
        self._changed()
