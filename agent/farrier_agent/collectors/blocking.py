"""A thread for reading what may hang (a disk, procfs), asked from asyncio with a deadline.

A thread that hangs in the kernel cannot be ended. So each source has one of its own, nothing waits
behind what hangs, and as a daemon it does not hold up the end of the process.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

__all__ = ["BlockedError", "Blocking"]

T = TypeVar("T")


class BlockedError(RuntimeError):
    """The work has not ended in time. ``seconds`` is for how long it has been running."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer for {seconds:.1f} s")
        self.seconds = seconds


class Blocking:
    """Does one piece of work at a time, each in a thread of its own, which is called *name*.

    A thread costs 0.1 ms, and one that is not there needs no memory and no end.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._since: float | None = None

    @property
    def busy(self) -> bool:
        """The last piece of work has not ended yet."""
        return self._since is not None

    async def run(self, work: Callable[[], T], deadline: float) -> T:
        """What *work* returns or raises.

        Raises :class:`BlockedError` when it takes more than *deadline* seconds, and at once while
        an earlier one still runs. A result that comes later is thrown away: it would be old.
        """
        begun = time.monotonic()
        if self._since is not None:
            raise BlockedError(begun - self._since)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        target = partial(self._do, loop, answer, work)
        threading.Thread(target=target, name=self._name, daemon=True).start()
        self._since = begun
        try:
            await asyncio.wait({answer}, timeout=deadline)
            if not answer.done():
                raise BlockedError(time.monotonic() - begun)
            return answer.result()
        finally:
            answer.cancel()

    def _do(
        self, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[T], work: Callable[[], T]
    ) -> None:
        settle: Callable[[], None]
        try:
            settle = partial(_resolve, answer, work())
        except Exception as error:  # whatever it is, it belongs to the one who asked
            settle = partial(_reject, answer, error)
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(self._end, settle)

    def _end(self, settle: Callable[[], None]) -> None:
        self._since = None
        settle()


def _resolve(answer: asyncio.Future[T], value: T) -> None:
    if not answer.done():
        answer.set_result(value)


def _reject(answer: asyncio.Future[T], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
