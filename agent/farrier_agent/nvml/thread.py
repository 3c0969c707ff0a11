"""A daemon thread for calls that may never return, asked from asyncio with a deadline.

A thread that hangs in the driver cannot be killed. So there is only ever one, nothing waits behind
it, and as a daemon it does not hold up the end of the process. The price is that a hung call blocks
this source until it returns.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

__all__ = ["BlockedError", "Thread"]

T = TypeVar("T")


class BlockedError(RuntimeError):
    """The call has not returned in time. ``seconds`` is for how long it has been running."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer for {seconds:.1f} s")
        self.seconds = seconds


class Thread(Generic[T]):
    """Runs *work* on demand, never twice at once. ``thread`` starts with the first demand."""

    def __init__(self, name: str, work: Callable[[], T]) -> None:
        self._name = name
        self._work = work
        self._jobs: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Future[T]]]
        self._jobs = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._running_since: float | None = None

    async def run(self, deadline: float) -> T:
        """What *work* returns or raises. Raises :class:`BlockedError` after *deadline* seconds.

        A result that comes later is thrown away: it would be old.
        """
        if self._running_since is not None:
            raise BlockedError(time.monotonic() - self._running_since)
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._running_since = begun = time.monotonic()
        self._jobs.put((loop, future))
        try:
            return await asyncio.wait_for(future, deadline)
        except asyncio.TimeoutError:
            raise BlockedError(time.monotonic() - begun) from None

    def _serve(self) -> None:
        while True:
            loop, future = self._jobs.get()
            settle: Callable[[], None]
            try:
                settle = _resolve(future, self._work())
            except Exception as error:  # whatever it is, it belongs to the one who asked
                settle = _reject(future, error)
            with suppress(RuntimeError):  # the loop is closed: nobody asks any more
                loop.call_soon_threadsafe(self._finish, settle)

    def _finish(self, settle: Callable[[], None]) -> None:
        self._running_since = None
        settle()


def _resolve(future: asyncio.Future[T], value: T) -> Callable[[], None]:
    return lambda: None if future.done() else future.set_result(value)


def _reject(future: asyncio.Future[T], error: Exception) -> Callable[[], None]:
    return lambda: None if future.done() else future.set_exception(error)
