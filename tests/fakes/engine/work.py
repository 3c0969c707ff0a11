"""What the engine executes: how much at once, and an account of every request.

The account outlives the engine when it has a file: a line of JSON when the execution of a request
begins and one when it ends, so that the engine after a restart, and whoever reads the file, knows
what the one before it did.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CUT = "cut"
"""The end of a request whose engine died before it."""


class Run:
    """One request that is executed. ``end`` says how it ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.end = "gone"


class Work:
    """At most *at_once* requests run, the others wait; 0 means that any number may run."""

    def __init__(self, at_once: int = 0, account: Path | None = None) -> None:
        self._at_once = at_once
        self._free = threading.Condition()
        self.running = 0
        self._queue: deque[object] = deque()
        self.generated = 0
        self.prompted = 0
        self._begun: Counter[str] = Counter()
        self._ends: Counter[str] = Counter()
        self._fd: int | None = None
        if account is not None:
            self._read(account)
            self._fd = os.open(account, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    @property
    def waiting(self) -> int:
        """The requests that wait for a place; first come, first served."""
        return len(self._queue)

    @contextmanager
    def execution(self, name: str, prompt_tokens: int) -> Iterator[Run]:
        """Wait for a place, then execute the request *name*."""
        with self._free:
            self._queue.append(place := object())
            self._free.wait_for(
                lambda: (
                    self._queue[0] is place and (not self._at_once or self.running < self._at_once)
                )
            )
            self._queue.popleft()
            self._free.notify_all()
            self.running += 1
            self.prompted += prompt_tokens
            self._begun[name] += 1
            self._write({"begun": name})
        run = Run(name)
        try:
            yield run
        finally:
            with self._free:
                self.running -= 1
                self._ends[run.end] += 1
                self._write({"ended": name, "end": run.end})
                self._free.notify_all()

    def token(self) -> None:
        """One more token was generated."""
        with self._free:
            self.generated += 1

    def idle(self) -> None:
        """Wait until nothing runs or waits."""
        with self._free:
            self._free.wait_for(lambda: not self.running and not self.waiting)

    def ended(self) -> dict[str, int]:
        """How many requests ended in which way."""
        with self._free:
            return dict(self._ends)

    def executed(self) -> dict[str, Any]:
        """The account: requests begun, ends, and how often each request was begun."""
        with self._free:
            return {
                "begun": self._begun.total(),
                "running": self.running,
                "waiting": self.waiting,
                "generated_tokens": self.generated,
                "ends": dict(self._ends),
                "requests": dict(self._begun),
            }

    def _read(self, account: Path) -> None:
        lines = account.read_text().splitlines() if account.exists() else []
        for entry in map(json.loads, lines):
            if "begun" in entry:
                self._begun[entry["begun"]] += 1
            else:
                self._ends[entry["end"]] += 1
        cut = self._begun.total() - self._ends.total()
        if cut:
            self._ends[CUT] += cut

    def _write(self, entry: dict[str, str]) -> None:
        if self._fd is not None:
            os.write(self._fd, json.dumps(entry).encode() + b"\n")
