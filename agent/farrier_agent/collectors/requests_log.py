"""What nginx tells of its requests, and the counting of them. No I/O here.

A message is one of syslog with a line of nginx's access log or of its error log, as the role
nginx's ``farrier.conf`` has them::

    <190>Nov 21 21:40:01 farrier: {"connection":9,"replica":"tiny","code":"200","completion":"OK",
        "seconds":1.204,"engine_first_byte":"0.020","engine_seconds":"1.203"}
    <187>Nov 21 21:40:01 farrier_error: 2026/11/21 21:40:01 [error] 52#52: *9 upstream prematurely
        closed connection while reading upstream, client: 198.18.0.5, server: _, request: "POST …

The second kind is needed because nginx logs an answer whose *engine* broke off as a whole one:
status 200, ``$request_completion`` OK (1.22.1 and 1.26.3: ngx_http_upstream_finalize_request sends
what it has and ends the request well); only an answer that the *client* left is not OK. The error
is told first, with the number of the client's connection, and the request's line follows.

A request without an engine (nginx refused it: 401, 404, 413, 429, the gate's 503) has neither of
the engine's two times. It is counted by its code, and in no histogram: these tell how long engines
take, and a thousand refusals of no time at all would hide a slow one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

import msgspec

from farrier_agent.collectors.histogram import Buckets, Histogram

__all__ = [
    "FIRST_BYTE_BOUNDS",
    "SECONDS_BOUNDS",
    "Line",
    "LineError",
    "ReplicaRequests",
    "RequestCounts",
    "Tally",
    "broken_connection",
    "parse",
]

SECONDS_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper bounds of the buckets of a request's duration: from an embedding to a long generation."""
FIRST_BYTE_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Those of the time to the first byte of the answer's head."""

MAX_SECONDS = 30 * 86400.0
"""No request takes longer; a larger number is none of nginx's."""


class LineError(ValueError):
    """A message is not one that the role's nginx writes."""


class ReplicaRequests(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one replica since the agent started.

    ``codes`` counts them by the status that the client got: three digits, 499 where it
    left before there was one, 000 where nginx has none. ``incomplete`` are those
    whose answer did not come to its end, a cut stream of status 200 among them, by who ended it:
    ``client`` (it left) or ``engine`` (it broke off). ``seconds`` is the whole duration,
    ``first_byte`` the time until the engine's answer began, both only of requests that were passed
    to the engine.
    """

    replica: str
    model: str
    codes: dict[str, int]
    incomplete: dict[str, int]
    seconds: Histogram
    first_byte: Histogram


class RequestCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What nginx told since the agent started.

    ``replicas`` are those of the configuration, in its order, also such without any request.
    ``lines`` counts messages by what became of them: ``counted``, ``other`` (a request of no
    replica: no such path), ``error`` (of the error log), ``refused`` (the sender was not nginx),
    ``garbled`` (not to be understood). ``full`` is how often more were found waiting than the
    kernel keeps: nginx may have had to drop some then, which nobody can count. ``last_at`` is when
    the last was read, in seconds since the epoch.
    """

    replicas: tuple[ReplicaRequests, ...]
    lines: dict[str, int]
    full: int = 0
    last_at: float | None = None


class Line(msgspec.Struct, frozen=True):
    """One request as nginx tells it; the engine's times are "" or "-" where it was not asked.

    With several attempts nginx lists their times, divided by ", " or " : ".
    """

    connection: int
    replica: str
    code: Annotated[str, msgspec.Meta(pattern="^[0-9]{3}$")]
    completion: str
    seconds: float
    engine_first_byte: str
    engine_seconds: str


_decoder = msgspec.json.Decoder(Line)
_BROKEN = re.compile(
    rb"\S+ \S+ \[[a-z]+\] \d+#\d+: \*(\d{1,19}) [^,]*"
    rb" while (?:reading upstream|sending to client), client: "
)
_MAX_BROKEN = 1024
"""Connections of broken answers that are remembered: each is forgotten with its request's line."""


def parse(text: bytes) -> Line:
    """The request of a line of the access log. Raises :class:`LineError`."""
    try:
        line = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LineError(str(error)) from error
    if not 0 <= line.seconds <= MAX_SECONDS:
        raise LineError(f"a request of {line.seconds:g} s")
    return line


def broken_connection(text: bytes) -> int | None:
    """The number of the client's connection whose answer broke off in the middle.

    None where *text*, a line of the error log, tells of something else. What a client can write
    (its request, its Host) stands behind what is looked at.
    """
    found = _BROKEN.match(text)
    return int(found[1]) if found else None


class _Replica:
    """The counts of one replica."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.incomplete = {"client": 0, "engine": 0}
        self.seconds = Buckets(SECONDS_BOUNDS)
        self.first_byte = Buckets(FIRST_BYTE_BOUNDS)

    def add(self, line: Line, *, broken: bool) -> None:
        self.codes[line.code] = self.codes.get(line.code, 0) + 1
        # nginx logs as whole what its engine broke off: without that the client had left before
        if line.completion != "OK":
            self.incomplete["client"] += 1
        elif broken:
            self.incomplete["engine"] += 1
        if line.engine_seconds:
            self.seconds.add(line.seconds)
        if (first := _last(line.engine_first_byte)) is not None:
            self.first_byte.add(first)


class Tally:
    """Counts messages for the replicas of a configuration, *models* by their replica."""

    def __init__(self, models: Mapping[str, str]) -> None:
        self.lines = {"counted": 0, "other": 0, "error": 0, "refused": 0, "garbled": 0}
        self.full = 0
        self.last_at: float | None = None
        self._models: dict[str, str] = {}
        self._replicas: dict[str, _Replica] = {}
        self._broken: dict[int, None] = {}
        self.serve(models)

    def serve(self, models: Mapping[str, str]) -> None:
        """Count for these from now on; what was counted for those that stay is kept."""
        self._replicas = {
            name: self._replicas[name] if self._models.get(name) == model else _Replica()
            for name, model in models.items()
        }
        self._models = dict(models)

    def take(self, message: bytes) -> None:
        """Count one *message* of nginx, whatever it is. Never raises."""
        head, colon, text = message.partition(b": ")
        if colon and head.endswith(b" farrier_error"):
            self._take_error(text)
        elif colon and head.endswith(b" farrier"):
            self._take_request(text)
        else:
            self.lines["garbled"] += 1

    def _take_error(self, text: bytes) -> None:
        self.lines["error"] += 1
        connection = broken_connection(text)
        if connection is not None:
            self._broken[connection] = None
            if len(self._broken) > _MAX_BROKEN:
                del self._broken[next(iter(self._broken))]

    def _take_request(self, text: bytes) -> None:
        try:
            line = parse(text)
        except LineError:
            self.lines["garbled"] += 1
            return
        broken = line.connection in self._broken
        if broken:
            del self._broken[line.connection]
        replica = self._replicas.get(line.replica)
        if replica is None:
            self.lines["other"] += 1
            return
        replica.add(line, broken=broken)
        self.lines["counted"] += 1

    def shown(self) -> RequestCounts:
        """All counts at this moment."""
        return RequestCounts(
            replicas=tuple(
                ReplicaRequests(
                    replica=name,
                    model=self._models[name],
                    codes=dict(sorted(one.codes.items())),
                    incomplete=dict(one.incomplete),
                    seconds=one.seconds.shown(),
                    first_byte=one.first_byte.shown(),
                )
                for name, one in self._replicas.items()
            ),
            lines=dict(self.lines),
            full=self.full,
            last_at=self.last_at,
        )


def _last(times: str) -> float | None:
    """The last of nginx's *times* in seconds; None where there is none."""
    words = times.replace(":", " ").replace(",", " ").split()
    try:
        seconds = float(words[-1]) if words else None
    except ValueError:
        return None
    return seconds if seconds is not None and 0 <= seconds <= MAX_SECONDS else None
