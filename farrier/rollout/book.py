"""The ledger while a rollout runs: written here before and after each step, copied to the hosts.

The host on which a step is done gets its copy at once, the others as soon as they can: whoever
goes on from another machine takes the newest copy there is, and compares it with what hosts say.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from farrier.fleet import ShellError
from farrier.rollout.counts import Counts, Requests, added, in_between, requests
from farrier.rollout.errors import RolloutError
from farrier.rollout.host import Host
from farrier.rollout.ledger import HostRecord, Ledger, StepRecord, encode
from farrier.rollout.steps import Step
from farrier.rollout.store import Store

__all__ = ["Book"]


class Book:
    """Writes *ledger* to *store*, and copies it to *hosts*. Several threads may use it.

    *tell* hears what could not be copied; that stops nothing.
    """

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        hosts: Mapping[str, Host],
        tell: Callable[[str, str], None],
    ) -> None:
        self.ledger = ledger
        self._store = store
        self._hosts = hosts
        self._tell = tell
        self._lock = threading.RLock()
        self._copied: dict[str, int] = {}
        self._fresh = threading.Event()
        self._over = threading.Event()
        self._copier = threading.Thread(target=self._copy_on, daemon=True)

    def open(self) -> None:
        """Begin to copy."""
        self._copier.start()

    def close(self) -> None:
        """Write and copy for the last time."""
        self.write()
        self._over.set()
        self._fresh.set()
        if self._copier.is_alive():
            self._copier.join(timeout=60)

    @contextmanager
    def changing(self) -> Iterator[Ledger]:
        """Change the ledger; it is on the disk at the end of this."""
        with self._lock:
            yield self.ledger
            self._write()

    def write(self) -> None:
        """Write it as it is."""
        with self._lock:
            self._write()

    @contextmanager
    def step(self, record: HostRecord, step: Step) -> Iterator[StepRecord]:
        """Record that *step* begins, with a copy on its host, and how it ends.

        That copy says how the step before ended, too; the others are made while this one is done.
        """
        one = StepRecord(step=step.value, began_at=time.time())
        with self.changing():
            record.steps.append(one)
        self._copy_to(record.host)
        try:
            yield one
        except BaseException as error:
            with self.changing():
                one.ended_at = time.time()
                one.outcome = "failed"
                one.note = str(error).split("\n", 1)[0][:500]
            raise
        with self.changing():
            one.ended_at = time.time()
            one.outcome = "done"

    def count(self, host: str, counts: Counts | None) -> None:
        """Add what *host* counted since it was looked at the last time."""
        if counts is None:
            return
        with self._lock:
            before = self.ledger.counted.get(host)
            self.ledger.counted[host] = counts
            if before is not None:
                new = requests(in_between(before, counts))
                self.ledger.requests = added(self.ledger.requests or Requests(), new)

    def _write(self) -> None:
        self.ledger.serial += 1
        self.ledger.written_at = time.time()
        self._store.save(self.ledger)
        self._fresh.set()

    def _copy_to(self, name: str) -> None:
        host = self._hosts.get(name)
        if host is None or host.token is None or host.away.is_set():
            return
        with self._lock:
            serial, data = self.ledger.serial, encode(self.ledger, compact=True)
        if self._copied.get(name, 0) >= serial:
            return
        try:
            host.put(self.ledger.id, data)
            self._copied[name] = max(serial, self._copied.get(name, 0))
        except (RolloutError, ShellError) as error:
            self._tell(name, f"its copy of the ledger is older: {getattr(error, 'what', error)}")

    def _copy_on(self) -> None:
        while True:
            self._fresh.wait()
            self._fresh.clear()
            over = self._over.is_set()
            threads = [
                threading.Thread(target=self._copy_to, args=(name,), daemon=True)
                for name in [one.host for one in self.ledger.hosts]
            ]
            for at in range(0, len(threads), 16):
                for one in threads[at : at + 16]:
                    one.start()
                for one in threads[at : at + 16]:
                    with suppress(RuntimeError):
                        one.join(timeout=40)
            if over and not self._fresh.is_set():
                return
