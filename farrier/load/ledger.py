"""The ledger: every request, what became of it, and what follows from all of them."""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from farrier.load.answer import Answer
from farrier.load.judging import LOST, Outcome
from farrier.load.spread import Spread

__all__ = ["Ledger", "Request", "Server"]

NOT_SERVED: frozenset[Outcome] = frozenset(("refused", "unreached"))
ONCE: frozenset[Outcome] = frozenset(("complete",))


@dataclass(slots=True)
class Request:
    """One request, as its client saw it. Times are seconds since the load began.

    ``outcome`` is None while it runs. ``key`` is the name of its key. ``reused``: its connection
    had carried another one before. ``repeats`` is how often it was sent again because the server
    had said that it did not touch it (HTTP/2 only; nothing else is ever sent again). ``tokens``
    were asked for.
    """

    name: str
    kind: str
    began: float
    model: str
    tokens: int
    key: str = ""
    ended: float = 0.0
    outcome: Outcome | None = None
    status: int = 0
    detail: str = ""
    server: str = ""
    reused: bool = False
    repeats: int = 0
    first_byte: float | None = None
    first_token: float | None = None

    def __str__(self) -> str:
        when = f"{self.began:.2f} to {self.ended:.2f} s"
        where = f" from {self.server}" if self.server else ""
        kept = ", on a kept connection" if self.reused else ""
        said = f": {self.detail}" if self.detail else ""
        return (
            f"{self.kind} {self.name}, {when}: {self.outcome}, {self.status or '-'}"
            f"{where}{said}{kept}"
        )

    def to_json(self) -> dict[str, Any]:
        """Every field that is known."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in values.items()
            if value not in {None, ""}
        }


@dataclass
class Server:
    """What one server did; the times are those at which its first and last request began."""

    first: float
    last: float
    outcomes: Counter[Outcome] = field(default_factory=Counter)


class Ledger:
    """Everything that was asked. It may be read, also by another thread, while the load runs."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        """What the names of all requests begin with."""
        self.requests: list[Request] = []
        """Those that are over, in the order in which they ended."""
        self.running: dict[str, tuple[Request, Answer]] = {}
        self.counts: Counter[tuple[str, Outcome]] = Counter()
        """How many requests of which kind ended in which way."""
        self.held_back = 0
        """Fresh requests that were not sent, because too many of them ran."""
        self.started = datetime.datetime.now(datetime.UTC)
        self.seconds: float | None = None
        """How long the load took; None while it runs."""
        self._began = time.monotonic()

    @property
    def now(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self._began

    def since(self, moment: float | None) -> float | None:
        """Seconds from the beginning to *moment* of time.monotonic()."""
        return None if moment is None else moment - self._began

    def begin(self, request: Request, answer: Answer) -> None:
        """Note a request that is about to be sent."""
        self.running[request.name] = (request, answer)

    def end(self, request: Request, outcome: Outcome, detail: str) -> None:
        """Note what became of it."""
        request.outcome, request.detail, request.ended = outcome, detail, self.now
        del self.running[request.name]
        self.requests.append(request)
        self.counts[request.kind, outcome] += 1

    # -- what follows ------------------------------------------------------------------------

    @property
    def outcomes(self) -> Counter[Outcome]:
        """How many requests ended in which way."""
        total: Counter[Outcome] = Counter()
        for (_, outcome), number in list(self.counts.items()):
            total[outcome] += number
        return total

    @property
    def lost(self) -> int:
        """How many were let in and not served: incomplete, aborted, dropped and wrong."""
        return sum(number for outcome, number in self.outcomes.items() if outcome in LOST)

    @property
    def dropped_on_kept(self) -> int:
        """How many were dropped on a connection that had served before (RFC 9112, 9.3.1)."""
        return sum(one.reused for one in self.of("dropped"))

    def of(self, *outcomes: Outcome, since: float = 0.0) -> list[Request]:
        """The requests that ended in one of these ways and began *since*."""
        return [
            one for one in list(self.requests) if one.outcome in outcomes and one.began >= since
        ]

    def losses(self) -> list[Request]:
        """The lost ones."""
        return self.of(*LOST)

    def at_work(self, kind: str) -> int:
        """How many requests of *kind* are being answered: their answer has begun."""
        running = list(self.running.values())
        return sum(one.kind == kind and answer.status == 200 for one, answer in running)

    @property
    def servers(self) -> dict[str, Server]:
        """What each server did that an answer names."""
        found: dict[str, Server] = {}
        for one in list(self.requests):
            if one.server and one.outcome:
                server = found.setdefault(one.server, Server(one.began, one.began))
                server.first = min(server.first, one.began)
                server.last = max(server.last, one.began)
                server.outcomes[one.outcome] += 1
        return found

    def latency(self, kind: str) -> Spread:
        """Seconds from its beginning to its end, of the complete ones, with its new connection."""
        return Spread.of(one.ended - one.began for one in self._complete(kind))

    def to_first_token(self, kind: str) -> Spread:
        """Seconds from its beginning to the first token, of the complete ones."""
        return Spread.of(
            one.first_token - one.began
            for one in self._complete(kind)
            if one.first_token is not None
        )

    def _complete(self, kind: str) -> Iterable[Request]:
        return (one for one in self.of("complete") if one.kind == kind)

    def faults(self, executed: Mapping[str, int]) -> list[str]:
        """Where the engines' account contradicts the clients', a line each.

        *executed* says how often an engine began to execute each request, by name. One that was
        complete was executed once; one that was refused, or reached nobody, never; none was
        executed twice, and none that nobody asked for.
        """
        bad = []
        known = set()
        for one in [*list(self.requests), *(one for one, _ in list(self.running.values()))]:
            known.add(one.name)
            times = executed.get(one.name, 0)
            if one.outcome in ONCE and not times:
                bad.append(f"{one}, but no engine executed it")
            elif one.outcome in NOT_SERVED and times:
                bad.append(f"{one}, and executed {times} times")
            elif times > 1:
                bad.append(f"{one}, executed {times} times")
        strangers = (name for name in executed if name.startswith(self.prefix or "\0"))
        bad += [f"{name} was executed, and nobody asked" for name in strangers if name not in known]
        return bad

    def to_json(self, *, requests: bool = True) -> dict[str, Any]:
        """All of it as a JSON value; without *requests* only what follows from them."""
        kinds = sorted({kind for kind, _ in list(self.counts)})
        value: dict[str, Any] = {
            "started": self.started.isoformat(timespec="milliseconds"),
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "prefix": self.prefix,
            "requests": len(self.requests),
            "lost": self.lost,
            "outcomes": dict(self.outcomes),
            "kinds": {kind: self._kind(kind) for kind in kinds},
            "servers": {
                name: {
                    "first": round(server.first, 6),
                    "last": round(server.last, 6),
                    "outcomes": dict(server.outcomes),
                }
                for name, server in sorted(self.servers.items())
            },
            "dropped_on_kept_connections": self.dropped_on_kept,
            "repeats": sum(one.repeats for one in self.requests),
            "held_back": self.held_back,
            "losses": [one.to_json() for one in self.losses()],
        }
        if requests:
            value["ledger"] = [one.to_json() for one in self.requests]
        return value

    def _kind(self, kind: str) -> dict[str, Any]:
        outcomes = {end: number for (of, end), number in self.counts.items() if of == kind}
        return {
            "outcomes": outcomes,
            "latency": self.latency(kind).to_json(),
            "to_first_token": self.to_first_token(kind).to_json(),
        }
