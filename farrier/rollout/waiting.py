"""Waiting that can be called off: by a lease that was lost, or by whoever asked to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["LOOK_EVERY", "StoppedError", "watched"]

LOOK_EVERY = 0.2
"""Seconds between two looks whether waiting was called off."""

_T = TypeVar("_T")


class StoppedError(Exception):
    """Somebody asked the rollout to stop."""


def watched(work: Callable[[], _T], check: Callable[[], None]) -> _T:
    """What *work* returns or raises; *check* is called meanwhile, and what it raises comes first.

    Then *work* is left behind in its thread: nobody waits for it any more.
    """
    future: Future[_T] = Future()

    def do() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=do, daemon=True).start()
    while True:
        try:
            return future.result(timeout=LOOK_EVERY)
        except TimeoutError:
            if future.done():
                return future.result()
        check()
