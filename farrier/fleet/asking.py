"""The same question to many hosts side by side; one that hangs holds up nobody."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from farrier.fleet.errors import NoAnswerError, ShellError
from farrier.fleet.shell import Shell
from farrier.fleet.target import Target

__all__ = ["DEADLINE", "Answered", "ask_all"]

T = TypeVar("T")

DEADLINE = 30.0
"""Seconds that a host has for its answer, the connection included."""


@dataclass(frozen=True)
class Answered(Generic[T]):
    """What one host said: ``value``, or ``error`` why it did not. ``seconds`` that it took."""

    target: Target
    value: T | None
    error: ShellError | None
    seconds: float


def ask_all(
    targets: Iterable[Target],
    question: Callable[[Shell], T],
    *,
    parallel: int = 32,
    deadline: float | None = DEADLINE,
    shells: dict[str, Shell] | None = None,
) -> Iterator[Answered[T]]:
    """Put *question* to every target, *parallel* at once; answers come in the order of answering.

    Each host has *deadline* seconds from when its turn came (None: as long as it takes); one that
    is not done then is answered for, and let go of, so that the next takes its place. What
    *question* raises beyond :class:`ShellError` is raised here. With *shells*, by the hosts' names,
    connections are taken from there and left open there, for who asks the same hosts again.
    """
    waiting = iter(targets)
    heard: queue.SimpleQueue[_Asking[T]] = queue.SimpleQueue()
    asking: set[_Asking[T]] = set()
    try:
        while True:
            while len(asking) < parallel and (target := next(waiting, None)) is not None:
                asking.add(_Asking(target, question, heard, shells))
            if not asking:
                return
            try:
                done = heard.get(timeout=_soonest(asking, deadline))
            except queue.Empty:
                late = [one for one in asking if deadline and one.seconds >= deadline]
            else:
                late = []
                if done in asking:
                    asking.discard(done)
                    yield done.answer()
            for one in late:
                asking.discard(one)
                one.give_up()
                yield one.too_late(deadline or 0.0)
    finally:
        for one in asking:
            one.give_up()


def _soonest(asking: Iterable[_Asking[T]], deadline: float | None) -> float | None:
    if deadline is None:
        return None
    return max(0.0, min(deadline - one.seconds for one in asking))


class _Asking(Generic[T]):
    """One host being asked, in a thread that nobody has to wait for."""

    def __init__(
        self,
        target: Target,
        question: Callable[[Shell], T],
        heard: queue.SimpleQueue[_Asking[T]],
        shells: dict[str, Shell] | None,
    ) -> None:
        self.target = target
        self._began = time.monotonic()
        self._shells = shells
        kept = None if shells is None else shells.setdefault(target.name, Shell(target))
        self._shell = kept or Shell(target)
        self._value: T | None = None
        self._error: BaseException | None = None
        self._took = 0.0
        threading.Thread(target=self._ask, args=(question, heard), daemon=True).start()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def _ask(self, question: Callable[[Shell], T], heard: queue.SimpleQueue[_Asking[T]]) -> None:
        try:
            self._value = question(self._shell)
        except BaseException as error:
            self._error = error
        if self._shells is None:
            self._shell.close()
        self._took = self.seconds
        heard.put(self)

    def answer(self) -> Answered[T]:
        if self._error is not None and not isinstance(self._error, ShellError):
            raise self._error
        return Answered(self.target, self._value, self._error, self._took)

    def too_late(self, deadline: float) -> Answered[T]:
        error = NoAnswerError(
            self.target.name, f"no answer within {deadline:g} s", f"{self.target.login.ssh} uptime"
        )
        return Answered(self.target, None, error, self.seconds)

    def give_up(self) -> None:
        if self._shells is not None:
            self._shells.pop(self.target.name, None)
        # in its own thread: closing waits for a connect that is under way
        threading.Thread(target=self._shell.close, daemon=True).start()
