"""The ledger of a rollout: what was planned and what was done, host by host. Pure.

It is written before and after each step, so that whoever finds it knows what may have begun. What
hosts say is the truth, and the ledger is what they are compared with. Times are seconds since the
epoch where a name ends in ``_at``, else seconds. ``None``: not known.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from farrier.rollout.comparing import Comparison
from farrier.rollout.counts import Counts, Requests
from farrier.rollout.errors import RolloutError
from farrier.rollout.plan import Kind

__all__ = [
    "SCHEMA",
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

HostState = Literal["waiting", "running", "done", "put back", "failed", "taken back"]
Outcome = Literal["planned", "running", "done", "failed", "refused", "stopped", "aborted"]


class LedgerError(RolloutError, ValueError):
    """A file is not a ledger that this program reads."""


class Operator(msgspec.Struct, kw_only=True):
    """Who drove it, from which machine, since when."""

    holder: str
    since_at: float
    pid: int | None = None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all hosts. Seconds are seconds."""

    limit: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    pending: bool = False
    batch: str = "1"
    max_unavailable: int | None = None
    max_in_flight: int = 256
    first: tuple[str, ...] = ()
    allow_gap: bool = False
    soak: float = 0.0
    deadline: float | None = None
    on_deadline: Literal["extend", "abort", "force"] | None = None
    patience: float = 900.0
    lease: float = 60.0
    hook_before: str | None = None
    hook_after: str | None = None
    canary: int | None = None
    hold: float = 0.0
    inventory: str = "inventory"
    command: tuple[str, ...] = ()
    reboot_seconds: float = 1200.0


class ReplicaRecord(msgspec.Struct, kw_only=True):
    """One replica. ``invocation_before`` is the run of its unit that is to end.

    ``goes_back`` says what it has otherwise when it is put back.
    ``failing``: it does not come up, so whatever run it is in is the one to end, until it is warm.
    ``heard`` is how many requests were in flight when it was last heard of, while it drains.
    """

    name: str
    model: str
    served: bool = True
    pending: bool | None = None
    failing: bool = False
    goes_back: str | None = None
    invocation_before: str | None = None
    invocation_after: str | None = None
    configuration_before: str | None = None
    configuration_after: str | None = None
    verdict_before: str | None = None
    verdict_after: str | None = None
    in_flight: int | None = None
    heard: int | None = None
    drain_seconds: float | None = None
    cut: int = 0
    stop_seconds: float | None = None
    start_seconds: float | None = None
    warm_seconds: float | None = None


class StepRecord(msgspec.Struct, kw_only=True):
    """A step that began; ``outcome`` is None while it runs, or when its end is not known."""

    step: str
    began_at: float
    ended_at: float | None = None
    outcome: Literal["done", "failed"] | None = None
    note: str = ""


class HostRecord(msgspec.Struct, kw_only=True):
    """One host. ``failure`` says why it stopped, ``next`` what to type about it.

    ``back``: it is being put back to what it ran before, as every host of a rollback; ``turned``
    says why where that was decided in the middle, and then the steps before ``turned_after`` were
    of the way there. ``cut_before`` are the requests that were cut before its replicas began anew.

    ``counts_before`` is what it counted of its requests before it was touched. ``output`` is the
    end of what a command or a converge wrote, ``evidence`` where the host keeps what explains a
    failure, ``soak`` what the soak showed. ``canary``: it is compared with the rest before others
    are changed, ``compared`` is how it fared, and ``shared`` are the replicas (``HOST:REPLICA``)
    that may have a share of their own on gateways until that is known to be ended.
    """

    host: str
    batch: int
    replicas: list[ReplicaRecord] = []
    state: HostState = "waiting"
    steps: list[StepRecord] = []
    back: bool = False
    turned: str | None = None
    turned_after: int = 0
    cut_before: int = 0
    boot_before: str | None = None
    boot_after: str | None = None
    agent_before: str | None = None
    agent_after: str | None = None
    verdict_before: str | None = None
    gpus_before: tuple[str, ...] | None = None
    counts_before: Counts | None = None
    output: str = ""
    evidence: list[str] = []
    soak: str = ""
    canary: bool = False
    shared: list[str] = []
    compared: list[Comparison] = []
    failure: str | None = None
    next: str | None = None
    code: int = 0

    @property
    def present(self) -> list[StepRecord]:
        """The steps of the sequence that it is in: those since it turned back, if it did."""
        return self.steps[self.turned_after :]

    @property
    def over(self) -> bool:
        """Nothing is left to be done here."""
        return self.state in {"done", "put back"}

    def doing(self, kind: Kind) -> Kind:
        """The sequence of steps that it follows in a rollout of *kind*."""
        return "rollback" if self.back else kind

    def turn_back(self, why: str) -> None:
        """From here on it is put back, because of *why*; steps that were done do not count then.

        A host that turned already goes on with that.
        """
        if self.back:
            return
        self.back, self.turned, self.turned_after = True, why, len(self.steps)

    def renew(self, replicas: list[ReplicaRecord]) -> None:
        """Have *replicas*, which begin anew; what was cut stays counted."""
        self.cut_before, self.replicas = self.cut, replicas

    def last(self, step: str) -> StepRecord | None:
        """The newest record of *step*, in the present sequence."""
        return next((one for one in reversed(self.present) if one.step == step), None)

    def did(self, step: str) -> bool:
        """*step* is known to be done, in its newest attempt."""
        record = self.last(step)
        return record is not None and record.outcome == "done"

    @property
    def cut(self) -> int:
        """Requests that were cut."""
        return self.cut_before + sum(one.cut for one in self.replicas)


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


def encode(ledger: Ledger) -> bytes:
    """*ledger* as the JSON of its file."""
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
