"""Ctrl-C while threads work."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["held_back"]


@contextmanager
def held_back(interrupted: threading.Event) -> Iterator[None]:
    """Ctrl-C sets *interrupted*, and KeyboardInterrupt is raised when the block is left.

    Raised where Python happens to be, it can break the locks of the thread pool that the block
    waits for (``RuntimeError: release unlocked lock``, seen with CPython 3.11). A third Ctrl-C is
    raised at once all the same.
    """
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or before is signal.SIG_IGN or before is None:
        yield
        return
    pressed = 0

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed += 1
        interrupted.set()
        if pressed > 1:
            signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    except Exception:
        if pressed:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
