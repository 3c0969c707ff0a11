"""The units that the agent cares for: always their newest states, and jobs on them.

What systemd says in signals is only that something changed; the unit is then read again, whole. So
a signal that is missed or misread costs nothing more than time, and after a lost connection, a
daemon-reload or a daemon-reexec everything is read anew. While there is no connection no state is
known: :meth:`Units.state` is None then, and not what was true once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from jeepney import Message

from farrier_agent.units import calls
from farrier_agent.units.bus import SYSTEM_BUS, Bus, BusLostError, connect
from farrier_agent.units.state import UnitsError, UnitState, with_starts

__all__ = ["WAITING", "Outcome", "Units"]

log = logging.getLogger("farrier-agent")

PING = 20.0
"""Seconds: as long as nothing is heard, systemd is asked whether it is there."""
BACKOFF = (0.1, 5.0)
"""Seconds between two attempts to connect: the first ones, the later ones."""
PATIENCE = 10.0
"""Seconds that a unit can be read again after a job, where the connection was lost meanwhile."""
WAITING = "waiting"
"""The result of a job that was not over in time: it goes on."""

Changed = Callable[["UnitState | None", UnitState], None]


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    ``unit`` is the truth: it was read after the job was over. ``job`` is what systemd said about
    the job (``done``, ``canceled``, ``timeout``, ``failed``, ``dependency``, ``skipped``, …),
    :data:`WAITING`, or None when its end was not heard of.
    """

    job: str | None
    unit: UnitState


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _ignore(before: UnitState | None, now: UnitState) -> None:
    """Nobody wants to know."""


class Units:
    """The units *names*, over the bus at *path*.

    *changed* is called in the event loop with a unit as it was known before and as it is now. All
    waits for :meth:`run`, which is to be a task of its own.
    """

    def __init__(
        self, names: Sequence[str], *, path: Path = SYSTEM_BUS, changed: Changed = _ignore
    ) -> None:
        self._names = tuple(dict.fromkeys(names))
        self._path = path
        self._changed = changed
        self._bus: Bus | None = None
        self._paths: dict[str, str] = {}
        self._watched: set[str] = set()
        self._last: dict[str, UnitState] = {}
        self._asked: dict[str, float] = {}
        self._problems: dict[str, str] = {}
        self._problem: str | None = "not connected yet"
        self._pause = BACKOFF[0]
        self._stale = True  # subscriptions and paths, too
        self._dirty: dict[str, None] = {}
        self._round = 0  # how often everything was read anew
        self._removed: dict[str, str] = {}
        self._jobs = 0
        self._news = asyncio.Event()
        self._turn = asyncio.Event()

    def state(self, name: str) -> UnitState | None:
        """The unit as it is; None when that is not known (:meth:`problem` says why)."""
        return None if self.problem(name) else self._last.get(name)

    def asked(self, name: str) -> float:
        """When systemd was asked for what :meth:`state` says, in seconds of CLOCK_BOOTTIME."""
        return self._asked.get(name, 0.0)

    def problem(self, name: str) -> str | None:
        """Why the state of the unit is not known; None when it is."""
        return self._problem or self._problems.get(name)

    async def known(self, within: float) -> bool:
        """Wait at most *within* seconds for a connection; whether there is one."""
        return await self._until(lambda: self._problem is None, time.monotonic() + within)

    # -- watching ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Stay connected and keep the states, until cancelled."""
        while True:
            try:
                await self._watch()
            except UnitsError as error:
                if self._problem != str(error):
                    log.warning("units: their states are unknown: %s", error)
                self._problem = str(error)
                self._wake()
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, BACKOFF[1])

    async def _watch(self) -> None:
        bus = await connect(self._path, self._heard)
        lost = asyncio.ensure_future(bus.lost())
        try:
            self._watched.clear()
            self._stale = True
            await calls.watch_manager(bus)
            while True:
                await self._settle(bus)
                await self._wait_for_news(bus, lost)
        finally:
            self._bus = None
            bus.close()
            lost.cancel()

    async def _wait_for_news(self, bus: Bus, lost: asyncio.Future[str]) -> None:
        news = asyncio.ensure_future(self._news.wait())
        both: set[asyncio.Future[str] | asyncio.Task[Literal[True]]] = {lost, news}
        try:
            done, _ = await asyncio.wait(both, timeout=PING, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
        if lost in done:
            raise BusLostError(lost.result())
        if not done:
            await calls.ping(bus)

    def _heard(self, signal: Message) -> None:
        if removed := calls.job_removed(signal):
            if self._jobs:
                self._removed[removed[0]] = removed[1]
                self._wake()
        elif path := calls.changed_path(signal):
            self._dirty |= {name: None for name, known in self._paths.items() if known == path}
            self._news.set()
        elif calls.resynchronise(signal):
            self._stale = True
            self._news.set()

    async def _settle(self, bus: Bus) -> None:
        """Read what changed until nothing more did. Raises BusLostError."""
        self._news.clear()
        self._dirty |= dict.fromkeys(self._problems)  # whatever it was may be over
        anew = False
        while self._stale or self._dirty:
            if self._stale:
                self._stale, anew = False, True
                await calls.subscribe(bus)
                self._paths.clear()
                self._dirty = dict.fromkeys(self._names)
            name = next(iter(self._dirty))
            del self._dirty[name]
            await self._look(bus, name)
        self._round += anew
        if self._bus is not bus:
            log.info("units: connected with systemd")
            self._bus, self._problem, self._pause = bus, None, BACKOFF[0]
        self._wake()

    async def _look(self, bus: Bus, name: str) -> None:
        try:
            path = self._paths.get(name) or await calls.load(bus, name)
            self._paths[name] = path
            if path not in self._watched:
                self._watched.add(path)
                await calls.watch_unit(bus, path)
            asked = _boottime()
            self._keep(await calls.read(bus, name, path), asked)
        except BusLostError:
            raise
        except UnitsError as error:  # of this unit; the others are none the worse
            self._paths.pop(name, None)
            if self._problems.get(name) != str(error):
                log.warning("unit %s: its state is unknown: %s", name, error)
            self._problems[name] = str(error)

    def _keep(self, read: UnitState, asked: float) -> UnitState:
        before = self._last.get(read.name)
        self._asked[read.name] = asked
        now = with_starts(before, read)
        self._last[read.name] = now
        self._problems.pop(read.name, None)
        if now != before:
            self._changed(before, now)
        self._wake()
        return now

    def _wake(self) -> None:
        self._turn.set()
        self._turn = asyncio.Event()

    async def _until(self, condition: Callable[[], bool], end: float) -> bool:
        """Whether *condition* came true before *end* (``time.monotonic()``)."""
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                return False
            turn = asyncio.ensure_future(self._turn.wait())
            await asyncio.wait({turn}, timeout=left)
            turn.cancel()
        return True

    # -- asking ------------------------------------------------------------------------------

    async def read(self, name: str) -> UnitState:
        """The unit, read now. Raises :class:`UnitsError` when that cannot be."""
        bus = self._line()
        path = self._paths.get(name) or await calls.load(bus, name)
        asked = _boottime()
        return self._keep(await calls.read(bus, name, path), asked)

    async def start(self, name: str, *, within: float) -> Outcome:
        """Start the unit and wait for it for at most *within* seconds, whatever its type means.

        Raises :class:`UnitsError` when systemd refuses, or cannot be asked. Of a connection that is
        lost after it was asked nothing is raised: the unit is read again as soon as there is one.
        """
        return await self._job("StartUnit", name, within)

    async def stop(self, name: str, *, within: float) -> Outcome:
        """Stop the unit. Raises as :meth:`start`."""
        return await self._job("StopUnit", name, within)

    async def restart(self, name: str, *, within: float) -> Outcome:
        """Stop and start the unit. Raises as :meth:`start`."""
        return await self._job("RestartUnit", name, within)

    def _line(self) -> Bus:
        if self._bus is None:
            raise BusLostError(f"systemd cannot be asked: {self._problem or 'not connected yet'}")
        return self._bus

    async def _job(self, method: str, name: str, within: float) -> Outcome:
        if name not in self._names:
            raise ValueError(f"{name} is none of the units that are watched")
        end = time.monotonic() + within
        bus, known = self._line(), self._round
        self._jobs += 1
        try:
            try:
                job = await calls.start_job(bus, method, name, "replace")
            except BusLostError as error:
                log.warning("unit %s: %s: %s", name, method, error)
                job = None
            over = await self._until(lambda: self._is_over(job, name, known), end)
            said = self._removed.get(job or "") if over else WAITING
            return Outcome(said, await self._read_again(name))
        finally:
            self._jobs -= 1
            if not self._jobs:
                self._removed.clear()

    def _is_over(self, job: str | None, name: str, known: int) -> bool:
        """systemd said so; or everything was read anew since, and the unit has no such job."""
        if job in self._removed:
            return True
        unit = self.state(name)
        if self._round == known or unit is None:
            return False
        return unit.job is None or (job is not None and not job.endswith(f"/{unit.job}"))

    async def _read_again(self, name: str) -> UnitState:
        end = time.monotonic() + PATIENCE
        while True:
            before = (self._bus, self._round)
            try:
                return await self.read(name)
            except BusLostError:
                if not await self._until(partial(self._is_back, before), end):
                    raise

    def _is_back(self, before: tuple[Bus | None, int]) -> bool:
        return self._bus is not None and (self._bus, self._round) != before
