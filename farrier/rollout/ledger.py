"""The ledger of a rollout: what was planned and what was done, host by host. Pure.

It is written before and after each step, so that whoever finds it knows what may have begun. What
hosts say is the truth, and the ledger is what they are compared with. Times are seconds since the
epoch where a name ends in ``_at``, else seconds. ``None``: not known.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from farrier.rollout.counts import Counts, Requests
from farrier.rollout.errors import RolloutError
from farrier.rollout.options import Options
from farrier.rollout.plan import Kind
from farrier.rollout.records import (
    GateRecord,
    HostRecord,
    HostState,
    ReplicaRecord,
    StepRecord,
)

__all__ = [
    "SCHEMA",
    "GateRecord",
    "HostRecord",
    "HostState",
    "Ledger",
    "LedgerError",
    "Operator",
    "Options",
    "Outcome",
    "ReplicaRecord",
    "Requests",
    "StepRecord",
    "decode",
    "encode",
    "name_canary",
]

SCHEMA = 1
"""Version of the file. Within one, fields are only added; a newer one is refused."""

Outcome = Literal["planned", "running", "done", "failed", "refused", "stopped", "aborted"]


class LedgerError(RolloutError, ValueError):
    """A file is not a ledger that this program reads."""


class Operator(msgspec.Struct, kw_only=True):
    """Who drove it, from which machine, since when."""

    holder: str
    since_at: float
    pid: int | None = None


class Ledger(msgspec.Struct, kw_only=True):
    """A whole rollout. ``serial`` grows with each writing.

    ``requests`` are those of the whole fleet while it ran, up to ``counted``, the last counts of
    each host.
    """

    schema: int = SCHEMA
    id: str
    kind: Kind
    serial: int = 0
    options: Options
    operators: list[Operator]
    hosts: list[HostRecord]
    left_out: list[str] = []
    outcome: Outcome = "planned"
    reason: str | None = None
    next: str | None = None
    planned_at: float
    began_at: float | None = None
    ended_at: float | None = None
    written_at: float | None = None
    counted: dict[str, Counts] = {}
    requests: Requests | None = None

    def host(self, name: str) -> HostRecord:
        """The record of host *name*."""
        return next(one for one in self.hosts if one.host == name)

    @property
    def holder(self) -> str:
        """Who drives it now."""
        return self.operators[-1].holder

    @property
    def over(self) -> bool:
        """Nothing is left to do, or nobody will."""
        return self.outcome in {"done", "aborted"}

    @property
    def age(self) -> tuple[int, int]:
        """Of two copies the greater one is newer: whoever goes on is one more of ``operators``."""
        return len(self.operators), self.serial

    @property
    def cut(self) -> int:
        """Requests that a forced drain cut."""
        return sum(one.cut for one in self.hosts)

    @property
    def lost(self) -> int | None:
        """Requests lost: cut by a drain, or broken off by an engine.

        At a host's nginx these are 502, 504 and answers that broke off, what a drain cut among
        them; that one is counted by itself where its host forgot its counts in a reboot. None
        where the hosts could not be asked.
        """
        if self.requests is None:
            return None
        codes = self.requests.by_status
        return max(self.cut, codes.get("502", 0) + codes.get("504", 0) + self.requests.broken)


def name_canary(ledger: Ledger, batch: int) -> None:
    """Before *batch*: its first host is the canary where one is wanted and none was compared yet.

    It is changed alone; a canary in which nothing was to be changed was none.
    """
    if ledger.options.canary is None:
        return
    if any(one.canary and (one.replicas or not one.over) for one in ledger.hosts):
        return
    waiting = [one for one in ledger.hosts if one.batch == batch and not one.over]
    for one in waiting[:1]:
        one.canary = True
    if len(waiting) > 1:
        later = [one for one in ledger.hosts if one.batch > batch]
        for one in (*waiting[1:], *later):
            one.batch += 1


_decoder = msgspec.json.Decoder(Ledger)


def encode(ledger: Ledger, *, compact: bool = False) -> bytes:
    """*ledger* as the JSON of its file; *compact*: of its copies, which hosts keep up to a size."""
    if compact:
        return msgspec.json.encode(ledger) + b"\n"
    return msgspec.json.format(msgspec.json.encode(ledger), indent=1) + b"\n"


def decode(data: bytes, where: str = "ledger") -> Ledger:
    """The ledger in *data*, which came from *where*. Raises LedgerError."""
    try:
        ledger = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:
            schema = msgspec.json.decode(data, type=dict).get("schema")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            schema = None
        if isinstance(schema, int) and schema > SCHEMA:
            raise _newer(where, schema) from error
        raise LedgerError(f"{where}: not the ledger of a rollout: {error}") from error
    if ledger.schema > SCHEMA:
        raise _newer(where, ledger.schema)
    return ledger


def _newer(where: str, schema: int) -> LedgerError:
    return LedgerError(
        f"{where}: a ledger of version {schema}, this program reads {SCHEMA}",
        "upgrade farrier on this machine",
    )
