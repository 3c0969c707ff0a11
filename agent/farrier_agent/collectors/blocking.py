"""A thread for reading what may hang (a disk, procfs), asked from asyncio with a deadline.

A thread that hangs in the kernel cannot be ended. So each source has one of its own, nothing waits
behind what hangs, and as a daemon it does not hold up the end of the process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from farrier_agent.serving.worker import Worker

__all__ = ["BlockedError", "Blocking"]

T = TypeVar("T")


class BlockedError(RuntimeError):
    """The work has not ended in time. ``seconds`` is for how long it has been running."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer for {seconds:.1f} s")
        self.seconds = seconds


class Blocking:
    """Does one piece of work at a time in a thread *name*, which begins with the first."""

    def __init__(self, name: str) -> None:
        self._worker = Worker(name)
        self._running: asyncio.Task[None] | None = None
        self._since = 0.0

    @property
    def busy(self) -> bool:
        """The last piece of work has not ended yet."""
        return self._running is not None and not self._running.done()

    async def run(self, work: Callable[[], T], deadline: float) -> T:
        """What *work* returns or raises.

        Raises :class:`BlockedError` when it takes more than *deadline* seconds, and at once while
        an earlier one still runs. A result that comes later is thrown away: it would be old.
        """
        if self.busy:
            raise BlockedError(time.monotonic() - self._since)
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._since = time.monotonic()
        self._running = asyncio.create_task(self._do(work, answer))
        try:
            await asyncio.wait({answer}, timeout=deadline)
            if not answer.done():
                raise BlockedError(time.monotonic() - self._since)
            return answer.result()
        finally:
            answer.cancel()

    async def _do(self, work: Callable[[], T], answer: asyncio.Future[T]) -> None:
        # in a task of its own: who asked may be cancelled while the thread goes on
        try:
            value = await self._worker.do(work)
        except Exception as error:  # whatever it is, it belongs to the one who asked
            if not answer.done():
                answer.set_exception(error)
        else:
            if not answer.done():
                answer.set_result(value)
