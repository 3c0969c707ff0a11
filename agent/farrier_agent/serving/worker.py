"""A thread for work that may block (a disk, a lock of another process), done in order.

One for each replica, so that none waits for another's. As a daemon it does not hold up the end of
the process: what it was doing then is what a kill would have left, which the records are made for.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

__all__ = ["Worker"]

T = TypeVar("T")


class Worker:
    """Does work, one piece at a time, in a thread that begins with the first piece."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def do(self, work: Callable[[], T]) -> T:
        """What *work* returns or raises. It ends even when who asked is cancelled."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._work.put(partial(_into, loop, future, work))
        return await future

    def _serve(self) -> None:
        while True:
            self._work.get()()


def _into(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], work: Callable[[], T]
) -> None:
    settle: Callable[[], None]
    try:
        settle = partial(_settle, future, work())
    except BaseException as error:  # whatever it is, it belongs to the one who asked
        settle = partial(_reject, future, error)
    with suppress(RuntimeError):  # the loop is closed: nobody asks any more
        loop.call_soon_threadsafe(settle)


def _settle(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _reject(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
