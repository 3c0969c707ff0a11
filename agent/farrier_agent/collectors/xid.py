"""XIDs: the kernel's log first, NVML's events second, each fault counted once.

NVML does not tell 79, 119 and 120 (NVIDIA/DCGM#162), and a GPU can fall off the bus without any
XID (NVIDIA/NVSentinel#155), so the log is what counts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from farrier_agent.collectors import CollectError
from farrier_agent.collectors.blocking import BlockedError, Blocking
from farrier_agent.collectors.kernel_log import Reader, Record
from farrier_agent.collectors.kmsg import Kmsg, KmsgError, Position
from farrier_agent.collectors.memory import Memory, decoder, load
from farrier_agent.collectors.xid_book import Book, addresses
from farrier_agent.gpus import Gpus, Xid, XidEvent

__all__ = ["XidError", "XidLog", "Xids"]

log = logging.getLogger("farrier-agent")

PAUSE = 0.2
"""Seconds between two readings of a log that is written to all the time."""
UNASKED = 10.0
"""Seconds that a reading may take that nobody waits for."""
MAX_WAITING = 1000
"""Events of NVML's that wait for the next reading."""


class XidError(CollectError):
    """The kernel's log could not be read; the message says why, and what it costs."""


class Xids(msgspec.Struct, frozen=True, kw_only=True):
    """``counts`` since the agent first ran here, ``recent`` events of this boot, oldest first.

    ``lost_total`` records of the kernel's log were overwritten before they were read, since the
    agent started; ``dropped_total`` events were of more kinds than are counted.
    """

    counts: tuple[Xid, ...] = ()
    recent: tuple[XidEvent, ...] = ()
    lost_total: int = 0
    dropped_total: int = 0


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What a restart of the agent finds again: the counts, and how far the log is in them."""

    boot_id: str
    position: Position = Position()
    counts: tuple[Xid, ...] = ()
    recent: tuple[XidEvent, ...] = ()


_kept = decoder(Kept)


@dataclass(frozen=True)
class _Found:
    """What one look gave. ``watched`` is readable with the next record; ``more`` is there now."""

    xids: Xids
    kept: Kept | None
    error: XidError | None
    watched: int | None
    more: bool
    version: int


class XidLog:
    """Reads *kmsg*, and remembers in the file *state*. *boot_id* tells one boot from another.

    The log is read in a thread, at once when the kernel writes to it and not only each tick: what
    it holds is overwritten, soonest in the flood that a dying GPU lets loose. ``latest`` is what is
    known also where the log cannot be read, None before the first reading.
    """

    def __init__(self, kmsg: Path, state: Path, *, boot_id: str) -> None:
        self.latest: Xids | None = None
        self._boot_id = boot_id
        self._path = kmsg
        self._state = state
        self._memory: Memory[Kept] = Memory(state)
        self._thread = Blocking("xid")
        self._events: deque[XidEvent] = deque(maxlen=MAX_WAITING)
        self._uuids: Mapping[str, str] = {}
        self._running: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._watching: int | None = None
        self._error: XidError | None = None
        self._closed = False
        self._shown = -1
        # all below is the thread's
        self._log = Kmsg(kmsg)
        self._reader = Reader()
        self._book: Book | None = None
        self._version = 0
        self._lost = 0
        self._drained_at: float | None = None

    def add(self, events: Iterable[XidEvent]) -> None:
        """Take what NVML told; it is counted with the next reading."""
        self._events.extend(events)

    def learn(self, gpus: Gpus) -> None:
        """Know which GPU is at which PCI address."""
        self._uuids = addresses(gpus)

    async def collect(self, deadline: float) -> Xids:
        """XIDs so far, within *deadline* seconds. Raises :class:`XidError`."""
        end = time.monotonic() + deadline
        running = self._running
        if running is not None:
            # what came since it began has to be in the answer
            await asyncio.wait({running}, timeout=deadline)
            if not running.done():
                raise self._hangs(deadline)
        task = self._start(max(0.05, end - time.monotonic()))
        await asyncio.wait({task})
        task.result()
        if self._error is not None:
            raise self._error
        assert self.latest is not None  # noqa: S101 - there was no error
        return self.latest

    def _hangs(self, seconds: float) -> XidError:
        return XidError(
            f"{self._path} or {self._state} cannot be read: no answer for {seconds:.1f} s"
        )

    async def close(self) -> None:
        """Stop reading, and write what is not written yet."""
        self._closed = True
        self._unwatch()
        if self._later is not None:
            self._later.cancel()
        if self._running is not None:
            await asyncio.wait({self._running}, timeout=2.0)
        if not self._thread.busy:
            self._log.close()
        await self._memory.close()

    def _start(self, deadline: float) -> asyncio.Task[None]:
        self._unwatch()
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._read(deadline))
        return self._running

    async def _read(self, deadline: float) -> None:
        try:
            found = await self._thread.run(self._look, deadline)
        except BlockedError as error:
            self._error = self._hangs(error.seconds)
            return
        self.latest, self._error, self._shown = found.xids, found.error, found.version
        if found.kept is not None:
            self._memory.keep(found.kept)
        self._memory.go_on()
        if found.more or found.watched is not None:
            go_on = partial(self._watch, None if found.more else found.watched)
            pause = 0.0 if found.more else PAUSE
            self._later = asyncio.get_running_loop().call_later(pause, go_on)

    def _watch(self, handle: int | None) -> None:
        if self._closed or self._thread.busy:
            return
        if handle is None:
            self._start(UNASKED)
            return
        self._watching = handle
        asyncio.get_running_loop().add_reader(handle, self._start, UNASKED)

    def _unwatch(self) -> None:
        if self._watching is not None:
            asyncio.get_running_loop().remove_reader(self._watching)
            self._watching = None

    # in the thread

    def _look(self) -> _Found:
        if self._book is None:
            self._book = self._remembered()
        changed = self._book.learn(self._uuids)
        error, watched, more = None, None, False
        try:
            batch = self._log.read()
        except KmsgError as reason:
            error = XidError(str(reason))
            self._drained_at = None
        else:
            now, clock = time.time(), time.clock_gettime(time.CLOCK_MONOTONIC)
            for one in batch.records:
                event = self._reader.feed(one, self._when(one, now, clock))
                changed |= event is not None and self._book.add(event)
            self._lost += batch.lost
            self._drained_at = now if batch.drained else None
            watched = self._log.watched if batch.waits else None
            more = not batch.drained
        told = {pci: uuid for pci, uuid in self._reader.uuids.items() if pci not in self._uuids}
        changed |= self._book.learn(told)
        # the log first: it says more
        while self._events:
            changed |= self._book.add(self._events.popleft())
        self._version += changed
        return self._found(error, watched, more=more)

    def _found(self, error: XidError | None, watched: int | None, *, more: bool) -> _Found:
        assert self._book is not None  # noqa: S101 - only called with one
        # what an earlier look found that nobody waited for any more is new as well
        new = self._version != self._shown
        before = self.latest if not new else None
        xids = Xids(
            counts=before.counts if before else self._book.counts(),
            recent=before.recent if before else self._book.recent(),
            lost_total=self._lost,
            dropped_total=self._book.dropped,
        )
        kept = None
        if new and self._version:
            kept = Kept(
                boot_id=self._boot_id,
                position=self._log.position,
                counts=self._book.kept(),
                recent=xids.recent,
            )
        return _Found(xids, kept, error, watched, more, self._version)

    def _remembered(self) -> Book:
        try:
            kept = load(self._state, _kept)
        except OSError as error:
            # counts that begin anew cost little, faults that nobody sees cost a lot
            log.warning("%s cannot be read, XIDs are counted anew: %s", self._state, error.strerror)
            kept = None
        if kept is None:
            return Book()
        if kept.boot_id == self._boot_id:
            self._log.position = kept.position
            return Book(kept.counts, kept.recent)
        # the numbers of records begin anew; a file goes on
        self._log.position = msgspec.structs.replace(kept.position, seq=None)
        # which GPU was at an address in another boot cannot be learnt any more
        counts = (
            one if one.uuid else msgspec.structs.replace(one, pci_bus_id=None)
            for one in kept.counts
        )
        return Book(counts)

    def _when(self, one: Record, now: float, clock: float) -> float:
        """When *one* was written, in seconds since the epoch.

        The kernel's stamps are of a clock that nobody corrects (``dmesg -T`` is off by minutes
        after weeks); what came since the log was read to its end came since then.
        """
        if one.seconds is None:
            return now
        at = now - (clock - one.seconds)
        return min(now, max(at, self._drained_at or 0.0))
