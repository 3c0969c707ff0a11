"""What the gateway's HAProxy tells of its requests, and the counting of them. No I/O here.

A message is a line of the access log as the role gateway's ``haproxy.cfg`` has it (``log … format
raw``), a JSON object:

    {"time":1795309262.104,"model":"org/tiny","replica":"gpu01:tiny","key":"alice","status":200,
     "termination":"--","request_ms":1,"queue_ms":0,"connect_ms":0,"first_byte_ms":20,
     "total_ms":1204,"retries":"+1","prompt_tokens":11,"completion_tokens":7, …}

Times are HAProxy's %TR, %Tw, %Tc, %Tr and %Ta in milliseconds, -1 where it did not come to that; a
number that is not known is -1 or null. ``retries`` has a plus after a redispatch.

``termination`` are the first letters of HAProxy's *session state at disconnection* (configuration
manual, 8.5). The first says who ended it, the second what HAProxy was waiting for:

- ``--``: a whole answer. ``LR``: HAProxy answered itself, and so do ``PR`` and ``PT`` (refused).
- ``C`` the client left, ``c`` it was silent for too long; ``S`` the server refused, reset or broke
  off, ``s`` it was silent for too long; ``D``, ``K``, ``U`` HAProxy ended it, because the server
  went down or somebody asked for it; ``P`` and ``I`` HAProxy found the answer broken, or itself;
  ``R`` it had no memory or no sockets left.
- ``R`` waiting for the request, ``Q`` in the queue, ``C`` for the connection to the server, ``H``
  for the head of the answer, ``D`` in the middle of it, ``L`` sending its last bytes.

An answer is *incomplete by the client* that left once the request was the server's (``H``, ``D``,
``L``), and *by the server* where the answer had begun and broke off (``D``, ``L``). One that broke
off before its head is a 502, or a 504, and told by its code. A client that left before there was
an answer has 400 or nothing as status from HAProxy and is counted as 499, as nginx does.

The histograms are of answers of status 2xx from replicas: a thousand refusals of no time would
hide a slow engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

import msgspec

from farrier_agent.collectors.histogram import Buckets, Histogram

__all__ = [
    "FIRST_BYTE_BOUNDS",
    "MOST_KEYS",
    "MOST_REPLICAS",
    "SECONDS_BOUNDS",
    "GatewayCounts",
    "GatewayTally",
    "Line",
    "LineError",
    "ModelRequests",
    "parse",
]

SECONDS_BOUNDS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
"""Upper bounds of the buckets of a request's duration: from an embedding to a long generation."""
FIRST_BYTE_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Those of the time to the first byte of the answer's head."""

MOST_KEYS = 512
"""Names of keys that are told apart; the requests of further ones count for "" as key."""
MOST_REPLICAS = 4096
"""Replicas whose last request is told."""
MAX_MS = 30 * 86400 * 1000
"""No request takes longer; a larger number is none of HAProxy's."""
MAX_COUNT = 10**12
"""No answer has more tokens."""

_KEY = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_REPLICA = re.compile(r"[A-Za-z0-9._-]{1,253}:[a-z0-9-]{1,63}")

Milliseconds = Annotated[int, msgspec.Meta(ge=-1, le=MAX_MS)] | None
Count = Annotated[int, msgspec.Meta(ge=-1, le=MAX_COUNT)] | None


class LineError(ValueError):
    """A message is not one that the role's HAProxy writes."""


class Line(msgspec.Struct, frozen=True):
    """One request as HAProxy tells it; what else the log has is for people."""

    time: Annotated[float, msgspec.Meta(ge=0, le=1e11)]
    status: Annotated[int, msgspec.Meta(ge=-1, le=999)]
    termination: Annotated[str, msgspec.Meta(min_length=2, max_length=4)]
    model: str | None = None
    replica: str | None = None
    key: str | None = None
    request_ms: Milliseconds = None
    queue_ms: Milliseconds = None
    connect_ms: Milliseconds = None
    first_byte_ms: Milliseconds = None
    total_ms: Milliseconds = None
    retries: int | Annotated[str, msgspec.Meta(pattern=r"^\+?[0-9]{1,4}$")] | None = None
    prompt_tokens: Count = None
    completion_tokens: Count = None

    @property
    def code(self) -> str:
        """The status that the client got: three digits, 499 where it left before, 000 for none."""
        if self.termination[0] == "C" and self.termination[1] in "RQCHT":
            return "499"
        return f"{self.status:03d}" if self.status >= 100 else "000"

    @property
    def cut_by(self) -> str | None:
        """Who is to blame for an answer that is not whole: ``client`` or ``server``."""
        who, where = self.termination[0], self.termination[1]
        if who in "Cc":
            return "client" if where in "HDL" else None
        return "server" if where in "DL" and who not in "-L" else None

    @property
    def sent_at(self) -> float | None:
        """When it was sent to the replica, in seconds since the epoch; None: it never was."""
        if self.connect_ms is None or self.connect_ms < 0:
            return None
        before = (self.request_ms, self.queue_ms, self.connect_ms)
        return self.time + sum(max(0, each or 0) for each in before) / 1000

    @property
    def tries(self) -> int:
        """How often it was tried again."""
        return max(0, int(self.retries or 0))


_decoder = msgspec.json.Decoder(Line)


def parse(text: bytes) -> Line:
    """The request of a line. Raises :class:`LineError`."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LineError(str(error)) from error


class ModelRequests(msgspec.Struct, frozen=True, kw_only=True):
    """The requests for one model since the agent started; ``model`` is "" for an unknown one.

    ``codes`` counts them by key and code, ``tokens`` by key and kind (``prompt``, ``completion``),
    where the answer told them; ``incomplete`` by who is to blame. ``retries`` are further attempts.
    ``seconds`` is from a request's first byte to its answer's last, ``first_byte`` from its last
    byte to the answer's first: in the queue, to the host, and the engine's own.
    """

    model: str
    codes: dict[tuple[str, str], int]
    tokens: dict[tuple[str, str], int]
    incomplete: dict[str, int]
    retries: int
    seconds: Histogram
    first_byte: Histogram


class GatewayCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What HAProxy told since the agent started.

    ``models`` are those of the configuration, in its order, also such without any request, and then
    "" where it is needed. ``last_sent`` is when the last request that ended was sent to a replica,
    in seconds since the epoch. ``lines`` counts messages by what became of them: ``counted``,
    ``refused`` (the sender was not HAProxy), ``garbled``. ``full`` is how often more were found
    waiting than the kernel keeps: some may have been dropped, which nobody can count.
    """

    models: tuple[ModelRequests, ...]
    last_sent: dict[str, float]
    lines: dict[str, int]
    full: int = 0


class _Model:
    """The counts of one model."""

    def __init__(self) -> None:
        self.codes: dict[tuple[str, str], int] = {}
        self.tokens: dict[tuple[str, str], int] = {}
        self.incomplete = {"client": 0, "server": 0}
        self.retries = 0
        self.seconds = Buckets(SECONDS_BOUNDS)
        self.first_byte = Buckets(FIRST_BYTE_BOUNDS)

    def add(self, line: Line, key: str, *, replica: bool) -> None:
        code = (key, line.code)
        self.codes[code] = self.codes.get(code, 0) + 1
        self.retries += line.tries
        if (cut_by := line.cut_by) is not None:
            self.incomplete[cut_by] += 1
        told = (("prompt", line.prompt_tokens), ("completion", line.completion_tokens))
        for kind, count in told:
            if count is not None and count >= 0:
                self.tokens[key, kind] = self.tokens.get((key, kind), 0) + count
        if replica and 200 <= line.status < 300:
            self._add_times(line)

    def _add_times(self, line: Line) -> None:
        if line.total_ms is not None and line.total_ms >= 0:
            self.seconds.add(line.total_ms / 1000)
        if line.first_byte_ms is not None and line.first_byte_ms >= 0:
            waits = (line.queue_ms, line.connect_ms, line.first_byte_ms)
            self.first_byte.add(sum(max(0, each or 0) for each in waits) / 1000)


class GatewayTally:
    """Counts messages for *models*, the fleet's."""

    def __init__(self, models: Iterable[str]) -> None:
        self.lines = {"counted": 0, "refused": 0, "garbled": 0}
        self.full = 0
        self.last_at: float | None = None
        self._models: dict[str, _Model] = {}
        self._unknown = _Model()
        self._keys: set[str] = set()
        self._last_sent: dict[str, float] = {}
        self.serve(models)

    def serve(self, models: Iterable[str]) -> None:
        """Count for these from now on; what was counted for those that stay is kept."""
        self._models = {name: self._models.get(name) or _Model() for name in models}

    def take(self, message: bytes) -> None:
        """Count one *message* of HAProxy, whatever it is. Never raises."""
        try:
            line = parse(message)
        except LineError:
            self.lines["garbled"] += 1
            return
        replica = line.replica if line.replica and _REPLICA.fullmatch(line.replica) else None
        model = self._models.get(line.model or "", self._unknown)
        model.add(line, self._key(line.key), replica=replica is not None)
        if replica is not None:
            self._sent(replica, line.sent_at)
        self.lines["counted"] += 1

    def shown(self) -> GatewayCounts:
        """All counts at this moment."""
        unknown = {"": self._unknown} if self._unknown.codes else {}
        return GatewayCounts(
            models=tuple(_shown(name, one) for name, one in (self._models | unknown).items()),
            last_sent=dict(self._last_sent),
            lines=dict(self.lines),
            full=self.full,
        )

    def _key(self, name: str | None) -> str:
        """The key's *name*, of so many as are told apart. HAProxy has them from its own map."""
        if name is None or not _KEY.fullmatch(name):
            return ""
        if name not in self._keys:
            if len(self._keys) >= MOST_KEYS:
                return ""
            self._keys.add(name)
        return name

    def _sent(self, replica: str, at: float | None) -> None:
        known = replica in self._last_sent
        if at is not None and (known or len(self._last_sent) < MOST_REPLICAS):
            self._last_sent[replica] = max(at, self._last_sent.get(replica, at))


def _shown(name: str, one: _Model) -> ModelRequests:
    return ModelRequests(
        model=name,
        codes=dict(sorted(one.codes.items())),
        tokens=dict(sorted(one.tokens.items())),
        incomplete=dict(one.incomplete),
        retries=one.retries,
        seconds=one.seconds.shown(),
        first_byte=one.first_byte.shown(),
    )
