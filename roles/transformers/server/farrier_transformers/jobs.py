"""What was asked for, and who waits for what: between the event loop and the thread that computes.

One job runs, the others wait in their order, and no more than so many. A job is cancelled by a flag
that the thread looks at after each token.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from farrier_transformers.errors import ApiError

__all__ = ["Ended", "Event", "Job", "Line", "Piece", "Vector"]

RETRY_AFTER = 5
"""Seconds after which a client may ask again that was told that too many wait."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that an answer goes on with."""

    text: str


@dataclass(frozen=True, slots=True)
class Vector:
    """One embedding, and the number of tokens that it was made of."""

    values: list[float]
    tokens: int


@dataclass(frozen=True, slots=True)
class Ended:
    """An answer came to its end, for the *reason* ``stop`` or ``length``."""

    reason: str
    prompt_tokens: int
    answer_tokens: int


Event = Piece | Vector | Ended


class Job:
    """One request's work. Made in the event loop, at ``arrived``; *work* is done in the thread.

    ``async for event in job`` gives its events, up to and with :class:`Ended`; raises
    :class:`ApiError` where it failed or was cut off.
    """

    def __init__(self, work: Callable[[Any, Job], Ended]) -> None:
        self.work = work
        self.arrived = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | ApiError] = asyncio.Queue()
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Let it end with the token that is being made."""
        self._cancelled.set()

    def tell(self, event: Event | ApiError) -> None:
        """Hand an event to whoever waits for it, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:
            self.cancel()  # the loop is closed: nobody waits

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            event = await self._events.get()
            if isinstance(event, ApiError):
                raise event
            yield event
            if isinstance(event, Ended):
                return


class Line:
    """The jobs that wait, at most *most*, and the one that runs."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._closed: ApiError | None = None
        self._change = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many run: 0 or 1."""
        return int(self._running is not None)

    def join(self, job: Job) -> None:
        """Let *job* wait for its turn. Raises :class:`ApiError` where there is no room."""
        with self._change:
            if self._closed:
                raise self._closed.with_traceback(None)
            # With nothing to do the thread takes it at once: it does not count as waiting.
            if len(self._waiting) >= self._most + (self._running is None):
                raise ApiError(
                    503,
                    f"{len(self._waiting)} requests wait already; ask again later",
                    code="queue_full",
                    retry_after=RETRY_AFTER,
                )
            self._waiting.append(job)
            self._change.notify()

    def leave(self, job: Job) -> None:
        """*job* is not wanted any more: it waits no longer, or ends with its next token."""
        with self._change:
            job.cancel()
            if job in self._waiting:
                self._waiting.remove(job)

    def next(self) -> Job | None:
        """The job whose turn it is, as soon as there is one; None once the line has ended."""
        with self._change:
            self._running = None
            self._change.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            self._running = self._waiting.popleft()
            return self._running

    def close(self, why: ApiError) -> None:
        """Take nobody any more; who waits or runs is still served."""
        with self._change:
            self._closed = self._closed or why
            self._change.notify()

    def cut(self, why: ApiError) -> None:
        """Take nobody any more, and tell everybody who waits or runs *why* it is over."""
        with self._change:
            self._closed = self._closed or why
            jobs = [*([self._running] if self._running else []), *self._waiting]
            self._waiting.clear()
            self._change.notify()
        for job in jobs:
            job.cancel()
            job.tell(why)
