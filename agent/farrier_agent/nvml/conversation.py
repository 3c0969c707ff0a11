"""One collection asked of one worker, with an eye on the call that it is in."""

from __future__ import annotations

import time
from dataclasses import dataclass

from farrier_agent.collectors.gpu import GpuError
from farrier_agent.nvml import wire
from farrier_agent.nvml.calling import Call
from farrier_agent.nvml.child import Child
from farrier_agent.nvml.collection import Collection
from farrier_agent.nvml.patience import Order

__all__ = ["HangError", "Limits", "converse"]


@dataclass(frozen=True)
class Limits:
    """``end`` of the collection (``time.monotonic()``); ``stall``: seconds that one call may take;
    ``start``: seconds that a new worker may take to load NVML.
    """

    end: float
    stall: float
    start: float


class HangError(Exception):
    """The worker did not finish. It is in ``call``, since ``seconds``.

    ``starting``: it still loads NVML, and may go on; ``slow``: its calls return, but too late.
    """

    def __init__(
        self, call: Call, seconds: float, *, starting: bool = False, slow: bool = False
    ) -> None:
        super().__init__(_words(call, seconds, starting=starting, slow=slow))
        self.call = call
        self.starting = starting
        self.slow = slow


def _words(call: Call, seconds: float, *, starting: bool, slow: bool) -> str:
    if not call.function and starting:
        return f"the NVML worker is starting, for {seconds:.1f} s so far"
    if not call.function:
        return f"the NVML worker does not answer, for {seconds:.1f} s so far"
    if slow:
        return f"NVML is slow: it was at {call} when the reading had to be there"
    return f"NVML hangs in {call}: no answer for {seconds:.1f} s"


class _Watch:
    """Looks at the worker's progress: an answer, or another call."""

    def __init__(self, child: Child, limits: Limits) -> None:
        self._child = child
        self._limits = limits
        self._asked_in = self._call = child.call
        self._moved_at = time.monotonic()

    def pause(self) -> float:
        """Seconds until the next look."""
        left = self._limits.end - time.monotonic()
        return max(0.01, min(self._limits.stall / 5, left))

    def look(self, *, begun: bool, answered: bool) -> None:
        """Raises HangError."""
        now, call, limits = time.monotonic(), self._child.call, self._limits
        if answered or call.number != self._call.number:
            self._call, self._moved_at = call, now
        if not begun and call.number == self._asked_in.number and call.function != "nvmlInit":
            call = Call(0, "", call.gpu)  # that one returned before it was asked
        idle, over = now - self._moved_at, now >= limits.end
        if not self._child.loaded and call.function in {"", "nvmlInit"}:
            age = now - self._child.begun_at
            if over or age >= limits.start:
                raise HangError(call, age, starting=age < limits.start)
        elif idle >= limits.stall or (over and idle >= limits.stall / 2):
            raise HangError(call, idle)
        elif over:
            raise HangError(call, idle, slow=True)


async def converse(
    child: Child,
    collection: Collection,
    limits: Limits,
    *,
    turn: int,
    order: Order | None,
) -> None:
    """Have *child* read the GPUs in *order* into *collection*.

    Raises HangError; EOFError when the worker ended; WireError; GpuError for what NVML says.
    """
    watch = _Watch(child, limits)
    child.ask(turn, order)
    begun = False
    while True:
        answer = await child.hear(watch.pause())
        if answer is not None and answer.number == child.number:
            if isinstance(answer, wire.Failed):
                raise GpuError(answer.words, kind=answer.kind, call=answer.call or None)
            if collection.take(answer):
                return
            begun = child.loaded = True
        watch.look(begun=begun, answered=answer is not None)
