"""A whole rollout: leases of all hosts, then batch after batch, then the sums."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from farrier.fleet import ShellError
from farrier.rollout import canary
from farrier.rollout.book import Book
from farrier.rollout.capacity import Room, can_drain
from farrier.rollout.errors import RefusedError, RolloutError
from farrier.rollout.gateways import Gateways
from farrier.rollout.host import Host
from farrier.rollout.leases import Leases
from farrier.rollout.ledger import HostRecord, Ledger, Outcome, name_canary
from farrier.rollout.looking import look_at, others
from farrier.rollout.one_host import OneHost, Surroundings
from farrier.rollout.resuming import take_back
from farrier.rollout.stepping import Stepping
from farrier.rollout.store import Store

__all__ = ["Rolling"]

Tell = Callable[[str, str], None]


class Rolling:
    """Carries *ledger* out on *hosts* (every host that serves, by name), from wherever it stands.

    *tell* hears of a host (or of ``""``, the whole) what it does. *stop* ends it after the present
    steps; so does :meth:`Store.ask_to_abort`. On the hosts *takeover* it takes over what another
    rollout left half done.
    """

    def __init__(
        self,
        ledger: Ledger,
        hosts: Mapping[str, Host],
        store: Store,
        tell: Tell,
        stop: threading.Event,
        *,
        run_again: bool = False,
        takeover: Collection[str] = (),
        gateways: Gateways | None = None,
    ) -> None:
        self.ledger = ledger
        self._hosts = hosts
        self._store = store
        self._tell = tell
        self._stop = stop
        self._run_again = run_again
        self._takeover = takeover
        self._gateways = gateways
        self._book = Book(ledger, store, hosts, tell)
        self._turn = threading.Lock()
        missing = [one.host for one in ledger.hosts if one.host not in hosts]
        if missing:
            raise RolloutError(
                f"{', '.join(missing)}: in the plan of {ledger.id}, and not in the inventory",
                f"farrier rollout show {ledger.id}",
            )
        mine = [hosts[one.host] for one in ledger.hosts]
        self._leases = Leases(mine, ledger.id, ledger.holder, ledger.options.lease)

    def run(self) -> Ledger:
        """Do it. Raises RefusedError before the first change where it may not begin."""
        with self._driving():
            self._begin()
            try:
                outcome, reason, next_command = self._batches()
            except BaseException:
                self._end("stopped", "it ended unexpectedly", self._resume())
                raise
            self._end(outcome, reason, next_command)
        return self.ledger

    def abort(self) -> Ledger:
        """Give it up: take back what is safe to take back, and the leases."""
        with self._driving():
            self._begin()
            left = [said for said in map(self._take_back, self.ledger.hosts) if said]
            reason = "; ".join(left) or "everything that it had drained serves again"
            next_command = f"farrier status {left[0].split(':', 1)[0]}" if left else None
            self._end("aborted", reason, next_command)
        return self.ledger

    @contextmanager
    def _driving(self) -> Iterator[None]:
        with self._store.driving(self.ledger.id):
            # taken again, it waits for those that reboot
            seconds = self.ledger.options.reboot_seconds if len(self.ledger.operators) > 1 else 0.0
            rebooting = {
                one.host: seconds
                for one in self.ledger.hosts
                if self.ledger.kind in {"reboot", "driver"} and one.state in {"running", "failed"}
            }
            self._leases.take_all(takeover=self._takeover, wait=rebooting)
            try:
                yield
            finally:
                for said in self._leases.release_all():
                    self._tell("", said)

    def _begin(self) -> None:
        looks, _ = look_at(self._hosts.values())
        for name, look in looks.items():
            self._book.count(name, look.counts if look else None)
        with self._book.changing() as ledger:
            ledger.outcome, ledger.reason, ledger.next = "running", None, None
            ledger.began_at = ledger.began_at or time.time()
            ledger.ended_at = None
        self._book.open()
        threading.Thread(target=self._listen, daemon=True).start()

    def _end(self, outcome: Outcome, reason: str | None, next_command: str | None) -> None:
        looks, _ = look_at(self._hosts.values())
        for name, look in looks.items():
            self._book.count(name, look.counts if look else None)
        self._end_shares(given_up=outcome == "aborted")
        with self._book.changing() as ledger:
            ledger.outcome, ledger.reason, ledger.next = outcome, reason, next_command
            ledger.ended_at = time.time()
        self._book.close()

    def _end_shares(self, *, given_up: bool) -> None:
        """End what canaries have; one that was found worse waits for its end with nothing."""
        for one in self.ledger.hosts:
            if one.shared and (given_up or one.over or not one.back):
                it = OneHost(self._hosts[one.host], one, self._around())
                canary.end_share(it, patience=15)

    def _batches(self) -> tuple[Outcome, str | None, str | None]:
        number = -1
        while (number := number + 1) <= max((one.batch for one in self.ledger.hosts), default=-1):
            with self._book.changing() as ledger:
                name_canary(ledger, number)
            batch = [one for one in self.ledger.hosts if one.batch == number]
            if self._stop.is_set():
                return "stopped", "stopped on demand", self._resume()
            self._batch([one for one in batch if not one.over])
            if bad := [one for one in batch if one.state == "failed"]:
                outcome: Outcome = "refused" if all(one.code == 3 for one in bad) else "failed"
                return outcome, bad[0].failure, bad[0].next or self._resume()
            if any(not one.over for one in batch):
                return "stopped", "stopped on demand", self._resume()
            if turned := [one for one in batch if one.turned]:
                why = f"{turned[0].host} was put back: {turned[0].turned}"
                return "failed", why, f"farrier rollout show {self.ledger.id}"
        return "done", None, None

    def _batch(self, records: Iterable[HostRecord]) -> None:
        around = self._around()
        threads = [
            threading.Thread(
                target=Stepping(self._hosts[one.host], one, around).run, daemon=True, name=one.host
            )
            for one in records
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(timeout=0.5)  # a join without end would not let signals in

    def _around(self) -> Surroundings:
        return Surroundings(
            ledger=self.ledger,
            book=self._book,
            store=self._store,
            leases=self._leases,
            room=self._wait_for_room,
            tell=self._tell,
            stop=self._stop,
            run_again=self._run_again,
            gateways=self._gateways,
            others=partial(others, self._hosts),
        )

    def _wait_for_room(self, record: HostRecord, check: Callable[[], None]) -> None:
        """Wait until the others can carry the load of *record*'s host and its batch."""
        end = time.monotonic() + self.ledger.options.patience
        said = None
        while True:
            check()
            with self._turn:
                bad = [one for one in self._room(record) if one.why]
            if not bad:
                return
            why = "; ".join(one.why or "" for one in bad)
            if any(one.alone for one in bad):
                raise RefusedError(
                    f"{record.host}: not drained: {why}",
                    "the same with --allow-gap, if that gap may be",
                )
            if time.monotonic() >= end:
                raise RefusedError(
                    f"{record.host}: not drained: {why}",
                    "farrier status; then farrier rollout resume"
                    f" {self.ledger.id}; --allow-gap and --max-in-flight are of a new rollout",
                )
            if why != said:
                self._tell(record.host, f"waits: {why}")
                said = why
            time.sleep(2)

    def _room(self, record: HostRecord) -> tuple[Room, ...]:
        looks, _ = look_at(self._hosts.values())
        drained = {
            one.host: [it.name for it in one.replicas]
            for one in self.ledger.hosts
            if one.batch == record.batch and not one.over
        }
        options = self.ledger.options
        return can_drain(
            drained,
            [look.seen if look else None for look in looks.values()],
            limit=options.max_in_flight,
            allow_gap=options.allow_gap,
            max_unavailable=options.max_unavailable,
        )

    def _take_back(self, record: HostRecord) -> str | None:
        """Take back what is safe on one host; why something stays closed there."""
        host = self._hosts[record.host]
        try:
            seen = host.look().seen
            todo = take_back(record.doing(self.ledger.kind), record, seen)
            if todo.leave:
                return f"{record.host}: stays closed: {todo.leave}"
            if todo.ready:
                self._tell(record.host, "taken back")
                names = [one.name for one in record.replicas if seen.replica(one.name)]
                done = host.ready(names, self.ledger.id, timeout=300)
                if bad := [one for one in done.results if one.code]:
                    return f"{record.host}: {bad[0].replica}: {bad[0].state}: {bad[0].text}"
            if todo.settle:
                host.settle()
            if todo.ready:
                with self._book.changing():
                    record.state = "taken back"
        except (ShellError, RolloutError) as error:
            return f"{record.host}: {getattr(error, 'what', error)}"
        return None

    def _listen(self) -> None:
        while not self._stop.wait(1.0):
            if self._store.abort_asked(self.ledger.id):
                self._tell("", "asked to stop: after the present steps")
                self._stop.set()

    def _resume(self) -> str:
        return f"farrier rollout resume {self.ledger.id}"
