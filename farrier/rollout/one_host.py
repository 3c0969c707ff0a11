"""One host of a rollout, its record, and what all steps need: to ask it, and to be called off."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from farrier_agent.control.protocol import Entry, News, Progress

from farrier.fleet import LostError, NoAnswerError, ShellError, UnreachableError
from farrier.rollout.book import Book
from farrier.rollout.counts import Counts, in_between
from farrier.rollout.errors import RolloutError
from farrier.rollout.gateways import Gateways
from farrier.rollout.host import Host, Look
from farrier.rollout.leases import Leases
from farrier.rollout.ledger import HostRecord, Ledger, ReplicaRecord
from farrier.rollout.plan import BOARDS, RESTARTS, Kind
from farrier.rollout.resuming import renewed, still_to_restart
from farrier.rollout.seen import HostSeen
from farrier.rollout.store import Store
from farrier.rollout.waiting import StoppedError, watched

__all__ = ["OneHost", "Surroundings", "replica_record"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Surroundings:
    """What the steps of all hosts share. ``room`` waits until a host may be drained.

    ``tell`` hears of a host what it does. ``stop`` is set when somebody wants the rollout to end.
    ``gateways`` are there where a canary is wanted, and ``others`` then says which replicas
    (``HOST:REPLICA``) of a model are on other hosts than a named one.
    """

    ledger: Ledger
    book: Book
    store: Store
    leases: Leases
    room: Callable[[HostRecord, Callable[[], None]], None]
    tell: Callable[[str, str], None]
    stop: threading.Event
    run_again: bool = False
    gateways: Gateways | None = None
    others: Callable[[str, str], tuple[str, ...]] = lambda _model, _host: ()


def replica_record(seen: HostSeen, name: str) -> ReplicaRecord:
    """The record of a replica as it is before anything is done to it."""
    one = seen.replica(name)
    if one is None:
        raise RolloutError(f"{seen.host}: its agent knows no replica {name}: it was not converged")
    return ReplicaRecord(
        name=name,
        model=one.model,
        served=one.serves,
        pending=one.pending,
        invocation_before=one.invocation,
        configuration_before=one.configuration,
        verdict_before=one.verdict,
    )


class OneHost:
    """*host* with its *record*, in the *around* of all hosts."""

    def __init__(self, host: Host, record: HostRecord, around: Surroundings) -> None:
        self.host = host
        self.record = record
        self.around = around
        self.ledger = around.ledger
        self.book = around.book

    @property
    def kind(self) -> Kind:
        """What is done to it: the rollout's kind, or it is put back."""
        return self.record.doing(self.ledger.kind)

    def look(self) -> Look:
        """How it is now."""
        return self.through_cuts(self.host.look)

    def replica(self, name: str) -> ReplicaRecord:
        """The record of the replica called *name*."""
        return next(one for one in self.record.replicas if one.name == name)

    def to_act_on(self, seen: HostSeen) -> tuple[str, ...]:
        """The replicas that are still to be drained and acted upon."""
        if self.kind in RESTARTS:
            return still_to_restart(self.record, seen)
        return tuple(one.name for one in self.record.replicas)

    def renewed(self, seen: HostSeen) -> list[ReplicaRecord]:
        """Records of the replicas that are to be restarted or opened from here on."""
        models = self.ledger.options.models
        mine = {one.name for one in self.record.replicas}
        fresh = [
            replica_record(seen, one.name)
            for one in seen.replicas
            if (not one.held_by or self.kind in BOARDS)
            and (not models or one.model in models)
            # a converge may change what nobody thought of
            and (self.kind == "converge" or one.name in mine)
        ]
        return renewed(self.record, seen, fresh)

    def remember(self, look: Look) -> None:
        """How it was before it was touched; what a former process noted stays."""
        record = self.record
        if look.counts is not None and record.counts_before is None:
            record.counts_before = self._baseline(look.counts)
        self.count(look)

    def _baseline(self, now: Counts) -> Counts:
        """What it counted since the rollout began, or where that is little, since ever."""
        first = self.ledger.counted.get(self.record.host)
        recent = in_between(first, now) if first else now
        enough = sum(one.count for one in recent.first_byte.values()) >= 100
        return recent if enough else now

    def count(self, look: Look) -> None:
        """Add what *look* shows to the sums."""
        self.book.count(self.record.host, look.counts)

    def through_cuts(self, ask: Callable[[], _T]) -> _T:
        """Ask again while the host cannot be reached, for as long as the lease may live."""
        try:
            return self.host.persistently(ask, self.ledger.options.lease + 30)
        except (UnreachableError, LostError, NoAnswerError):
            self.on_lease()
            raise

    def watched(
        self, work: Callable[[], _T], *, stoppable: bool = False, fenced: bool = True
    ) -> _T:
        """What *work* returns, unless the lease is lost meanwhile or the end is wanted."""

        def check() -> None:
            if fenced:
                self.on_lease()
            if stoppable and self.around.stop.is_set():
                raise StoppedError

        return watched(work, check)

    def on_lease(self) -> None:
        """Raise FencedError if the lease was lost."""
        self.around.leases.check(self.record.host)

    def wants_to_go_on(self) -> None:
        """Raise FencedError where the lease was lost, StoppedError where the end is wanted."""
        self.on_lease()
        if self.around.stop.is_set():
            raise StoppedError

    def keep_evidence(self, why: str) -> None:
        """Have what explains the state of its replicas kept on the host."""
        for one in self.record.replicas:
            try:
                path = self.host.evidence(one.name, why[:150])
            except (RolloutError, ShellError):
                continue
            if path:
                self.record.evidence.append(path)

    def look_into(self, replica: str) -> str:
        """What to type about *replica*."""
        return f"farrier logs {self.record.host}/{replica}"

    def news(self, news: News) -> None:
        """Tell what the agent tells while it works."""
        if isinstance(news, Progress):
            count = f", {news.in_flight} in flight" if news.in_flight is not None else ""
            self.tell(f"{news.replica} {news.state}{count}")
        elif isinstance(news, Entry):
            self.tell(news.message)

    def tell(self, what: str) -> None:
        """Say what is done on this host."""
        self.around.tell(self.record.host, what)
