"""The agent's side of the NVML worker: it is asked, watched, killed, replaced, and let go of."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import msgspec

from farrier_agent.collectors.gpu import GpuError
from farrier_agent.gpus import Gpus, Nvml, XidEvent
from farrier_agent.nvml.child import Child
from farrier_agent.nvml.collection import Collection, Identities
from farrier_agent.nvml.conversation import HangError, Limits, converse
from farrier_agent.nvml.patience import BackOff, HungGpus
from farrier_agent.nvml.wire import WireError

__all__ = ["START_SECONDS", "NvmlWorker"]

START_SECONDS = 30.0
"""Seconds that a new worker may take to load NVML: without persistence mode a GPU takes seconds.

A reading fails at its deadline all the same; but the worker is left at it, not begun anew.
"""

SHORTEST_STALL = 1.0
"""Seconds that one NVML call always has."""

SLOW = 3
"""A worker whose calls return, but too late, is killed after so many readings in a row."""

RENEW_SECONDS = (60.0, 3600.0)
"""A worker whose thread for events hangs is replaced, and again after so long, then twice that."""


class NvmlWorker:
    """Reads the GPUs in a process of its own. *library* is as ``nvml_library`` in agent.toml.

    *tick* is the seconds between two readings, *clock* as ``time.monotonic``.
    """

    def __init__(
        self,
        library: str | None,
        *,
        tick: float,
        clock: Callable[[], float] = time.monotonic,
        start_seconds: float = START_SECONDS,
    ) -> None:
        self._library = library
        self._clock = clock
        self._start_seconds = start_seconds
        self._reading = asyncio.Lock()
        self._child: Child | None = None
        self._stuck: Child | None = None
        self._back_off = BackOff()
        self._hung = HungGpus(first=max(10.0, 2 * tick))
        self._identities = Identities()
        self._error: GpuError | None = None  # why the last reading failed
        self._cause: GpuError | None = None  # why the last worker had to go
        self._workers = self._turn = self._slow = 0
        self._events: list[XidEvent] = []
        self._invalid: Counter[str] = Counter()  # of workers that are gone
        self._invalid_now: dict[str, int] = {}
        self._renew_at, self._renew_wait = 0.0, RENEW_SECONDS[0]
        self._released_until: float | None = None
        self._released_until_at = 0.0
        self._closed = False

    @property
    def nvml(self) -> Nvml:
        """How it fares."""
        released = self._is_released()
        error = self._released_error() if released else self._error
        hung = next(iter(self._hung), None)
        detail, call = None, None
        if error is not None:
            detail, call = str(error), error.call
        elif hung is not None:
            detail, call = f"GPU {hung.index}: {hung.words}", str(hung.call)
        return Nvml(
            kind=error.kind if error else None,
            detail=detail,
            call=call,
            stuck=self._is_stuck(),
            workers=self._workers,
            pid=self._child.pid if self._child and not self._child.ended else None,
            released_until_at=self._released_until_at if released else None,
        )

    async def read(self, deadline: float) -> Gpus:
        """The GPUs within *deadline* seconds, and what it takes to kill a worker.

        A GPU that hangs is in ``devices``, not ``up``. Raises GpuError where none could be read.
        """
        limits = Limits(
            end=time.monotonic() + deadline,
            stall=max(SHORTEST_STALL, deadline / 2),
            start=self._start_seconds,
        )
        async with self._reading:
            try:
                gpus = await self._read(limits)
            except GpuError as error:
                self._error = error
                raise
        self._error = None
        return gpus

    async def release(self, seconds: float) -> None:
        """Let go of the driver for *seconds* at most: then none of our processes has it open.

        Raises GpuError for a worker that holds it open and cannot be killed.
        """
        self._released_until = self._clock() + seconds
        self._released_until_at = time.time() + seconds
        await self._end()
        if self._is_stuck():
            raise self._stuck_error()

    async def acquire(self) -> None:
        """Take the driver again, with the next reading."""
        self._released_until = None

    async def close(self) -> None:
        """End the worker for good."""
        self._closed = True
        await self._end()

    # -- one reading -----------------------------------------------------------------------

    async def _read(self, limits: Limits) -> Gpus:
        collection = Collection(self._identities, self._hung)
        self._turn += 1
        while True:
            again, error = await self._attempt(collection, limits)
            if error is None or not again or not self._has_more(collection, limits):
                break
        if self._is_released():
            raise self._released_error()
        gpus = collection.result()
        if gpus is None:
            raise error or GpuError("no GPU could be read")
        events, self._events = tuple(self._events), []
        invalid = dict(self._invalid + Counter(self._invalid_now))
        return msgspec.structs.replace(gpus, events=events, invalid_total=invalid)

    def _has_more(self, collection: Collection, limits: Limits) -> bool:
        """Another worker is to read the rest now."""
        now = self._clock()
        if time.monotonic() >= limits.end or self._back_off.left(now):
            return False
        left = self._hung.order(self._turn, now, collection.read)
        return left is None or bool(left.indices)

    async def _attempt(
        self, collection: Collection, limits: Limits
    ) -> tuple[bool, GpuError | None]:
        """Have one worker read what is left; why it did not, and whether another one may."""
        try:
            child = self._running()
        except GpuError as problem:
            collection.problem(str(problem))
            return False, problem
        order = self._hung.order(self._turn, self._clock(), collection.read)
        again, blamed = False, False
        try:
            await converse(child, collection, limits, turn=self._turn, order=order)
        except HangError as hang:
            kind = "hangs" if hang.call.function and not hang.slow else "failed"
            why = GpuError(str(hang), kind=kind, call=str(hang.call) or None)
            self._slow = self._slow + 1 if hang.slow else 0
            if hang.starting or 0 < self._slow < SLOW:
                collection.problem(str(hang))
                return False, why
            again = blamed = self._blame(hang, collection)
        except EOFError:
            again = True
            why = GpuError(f"the NVML worker {await child.how_it_ended()}, at {child.call}")
        except WireError as problem:
            why = GpuError(f"the NVML worker is not understood: {problem}")
        except GpuError as problem:
            why = problem
            collection.head = None  # NVML itself is of no use: nor is what was read before
        else:
            self._succeeded(collection)
            await self._renew(child, collection)
            return False, None
        finally:
            self._events.extend(child.events())
        await self._drop(child)
        self._back_off.failed(self._clock())
        self._cause = why
        if not blamed:
            collection.problem(str(why))
        return again, why

    def _blame(self, hang: HangError, collection: Collection) -> bool:
        """Whether one GPU hangs: then it is left out, and the others can be read."""
        if collection.head is None or hang.call.gpu < 0 or hang.slow:
            return False
        self._hung.hung(hang.call, self._clock())
        return True

    def _succeeded(self, collection: Collection) -> None:
        self._slow = 0
        self._back_off.succeeded()
        self._invalid_now = collection.invalid or {}

    async def _renew(self, child: Child, collection: Collection) -> None:
        """Another worker, for the events' sake: a thread that hangs cannot be ended."""
        now = self._clock()
        if collection.events_hang and now >= self._renew_at:
            self._renew_at = now + self._renew_wait
            self._renew_wait = min(2 * self._renew_wait, RENEW_SECONDS[1])
            await self._drop(child)

    # -- the process -----------------------------------------------------------------------

    def _running(self) -> Child:
        """A worker to ask. Raises GpuError where there can be none now."""
        if self._closed:
            raise GpuError("the NVML worker was closed")
        if self._is_released():
            raise self._released_error()
        if self._is_stuck():
            raise self._stuck_error()
        if self._stuck is not None:
            self._stuck.close()
            self._stuck = None
        if self._child is not None:
            return self._child
        if self._back_off.left(self._clock()) and self._cause is not None:
            raise self._cause
        try:
            self._child = Child(self._library)
        except OSError as error:
            self._back_off.failed(self._clock())
            self._cause = GpuError(f"the NVML worker cannot be started: {error}")
            raise self._cause from error
        self._workers += 1
        return self._child

    async def _drop(self, child: Child) -> None:
        """End *child* and forget it; keep the one that cannot be ended, as stuck."""
        ended = await child.end()
        self._events.extend(child.events())
        if ended:
            child.close()
        else:
            self._stuck = child
        self._child = None
        self._invalid.update(self._invalid_now)
        self._invalid_now = {}

    async def _end(self) -> None:
        if self._child is not None:
            await self._child.end()  # before the lock: a reading under way ends with its worker
        async with self._reading:
            if self._child is not None:
                await self._drop(self._child)

    def _is_stuck(self) -> bool:
        return self._stuck is not None and not self._stuck.ended

    def _stuck_error(self) -> GpuError:
        stuck = self._stuck
        assert stuck is not None  # noqa: S101 - asked for only then
        return GpuError(
            f"NVML hangs in {stuck.call}, and its worker (PID {stuck.pid}) cannot be killed: it is "
            "stuck in the driver; drain this host and reboot it",
            kind="hangs",
            call=str(stuck.call),
        )

    def _is_released(self) -> bool:
        return self._released_until is not None and self._clock() < self._released_until

    def _released_error(self) -> GpuError:
        until = time.strftime("%H:%M:%S", time.localtime(self._released_until_at))
        return GpuError(
            f"NVML was let go of until {until}: farrier-agent nvml acquire", kind="released"
        )
