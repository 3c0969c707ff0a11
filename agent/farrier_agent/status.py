"""The one schema of ``/status``: what the agent knows at one moment, and what it answers.

A :class:`Status` is at once the agent's immutable snapshot, from which metrics and readiness are
made, and the JSON that ``/status`` serves; the operator's side imports this module to read it.
Seconds are seconds since the epoch where a name ends in ``_at``, else durations. ``None`` means
*could not be read*; no value is ever guessed.

Within one ``schema`` fields are only added, and a reader ignores those that it does not know.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from farrier_agent.gpus import Gpu, GpuProcess, Gpus, Nvml, UnitOnGpu, Xid

__all__ = [
    "SCHEMA",
    "Agent",
    "AgentCheck",
    "Collector",
    "Difference",
    "Drain",
    "Fingerprint",
    "Gpu",
    "GpuProcess",
    "Gpus",
    "Health",
    "Notice",
    "Nvml",
    "Reason",
    "Replica",
    "Requests",
    "Rollout",
    "Status",
    "StatusError",
    "Unit",
    "UnitOnGpu",
    "Verdict",
    "Xid",
    "dumps",
    "loads",
]

SCHEMA = 1
"""Version of this schema. A reader refuses an answer of a newer one."""


class StatusError(ValueError):
    """An answer is not a status of a schema that this program reads."""


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """The agent itself. ``python`` is the version of its interpreter."""

    version: str
    python: str
    pid: int
    started_at: float


class Collector(msgspec.Struct, frozen=True, kw_only=True):
    """How one collector fares.

    ``success`` is of its last attempt, with ``error`` the reason of a failure; ``fresh`` says that
    its data are at most three ticks old, older data are dropped.
    """

    name: str
    success: bool
    fresh: bool
    duration_seconds: float | None = None
    last_success_at: float | None = None
    error: str | None = None


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A systemd unit as ``systemctl show`` has it.

    ``invocation_id`` names one run of it (32 hex digits); it is None when the unit never ran.
    ``main_pid`` is None when it has no main process.
    """

    name: str
    load_state: str
    active_state: str
    sub_state: str
    invocation_id: str | None = None
    main_pid: int | None = None

    @property
    def active(self) -> bool:
        """The unit is up and not on its way up or down."""
        return self.active_state == "active"


class Drain(msgspec.Struct, frozen=True, kw_only=True):
    """A drain of a replica: who asked for it, the first one first, and how far it is.

    ``settling``: requests are still accepted. ``deadline_at`` is when ``policy`` counts.
    ``seconds`` are from its beginning to *drained*, or until now. ``in_flight_at_close`` is the
    first count behind the closed gate. ``forced``: waiting was given up, and ``cut`` requests were
    then still in flight.
    """

    asked_by: tuple[str, ...]
    reasons: tuple[str, ...]
    policy: Literal["extend", "abort", "force"]
    begun_at: float
    deadline_at: float
    seconds: float
    settling: bool = False
    over: bool = False
    in_flight_at_close: int | None = None
    forced: bool = False
    cut: int | None = None


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One replica: ``up`` when its unit is active and its engine answers for its model.

    ``detail`` says why it is not up, or its gate not open. ``restart_pending``: the running engine
    was started from another configuration than the present one. ``put_back``: its unit is the one
    from before, and not the one that is wanted, which the next converge brings again.

    ``phase`` is its state as serving names them, ``since_at``, for the ``reason`` that ``asked_by``
    gave. ``in_flight`` are the requests that nginx, or the engine itself, has in work, the larger
    of the two; ``strangers`` the connections to the engine's port past the gate. ``drain`` is the
    one that is under way or holds it closed, ``last_drain`` what the last run ended with.
    ``restarts`` are systemd's own, after a failure. ``health`` is the verdict on its progress, and
    ``health_restarts`` how often it was restarted for that within the last hour. ``nodes`` of its
    Ray live, of ``nodes_wanted``; None where it has no Ray.
    """

    name: str
    model: str
    engine: str
    unit: str
    port: int
    gpus: tuple[int, ...] = ()
    unit_state: Unit | None = None
    up: bool | None = None
    gate: Literal["open", "closed"] | None = None
    restart_pending: bool | None = None
    put_back: bool | None = None
    detail: str | None = None
    phase: str | None = None
    reason: str | None = None
    asked_by: str | None = None
    since_at: float | None = None
    in_flight: int | None = None
    strangers: int | None = None
    drain: Drain | None = None
    last_drain: Drain | None = None
    restarts: int | None = None
    health: Literal["idle", "busy", "suspect", "wedged", "unknown"] | None = None
    health_restarts: int = 0
    nodes: int | None = None
    nodes_wanted: int | None = None


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What a cloud announces to this host. ``drains``: the host is drained for it."""

    cloud: str
    kind: str
    id: str
    at: float
    drains: bool
    detail: str = ""


class AgentCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Questions of gateways since the agent started, answered and closed without an answer."""

    answered: int
    refused: int


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a verdict is not *healthy*, and the one thing to do about it.

    ``rule`` names the rule (docs/health.md). ``gpu`` is a uuid, ``replica`` a name, both None for
    the host. ``next`` is what to do, in a few words; ``command`` what to type, where something can
    be typed. ``latched``: it holds until what ``clears`` says was seen, or ``farrier-agent ack``.
    ``acts``: for this reason a replica may be drained; false where the rule only observes.
    ``held_back`` says why a drain that it calls for was not begun.
    """

    rule: str
    state: Literal["degraded", "unhealthy", "unknown"]
    text: str
    next: str
    command: str | None = None
    since_at: float
    gpu: str | None = None
    replica: str | None = None
    latched: bool = False
    clears: str | None = None
    acts: bool = False
    held_back: str | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is concluded about a GPU, a replica or the host; the worst of its ``reasons``."""

    state: Literal["healthy", "degraded", "unhealthy", "unknown"]
    reasons: tuple[Reason, ...] = ()


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The verdicts: of the host, of each GPU by its uuid, of each replica by its name.

    A replica has its GPUs' reasons too, and the host has all.
    """

    host: Verdict
    gpus: dict[str, Verdict] = {}
    replicas: dict[str, Verdict] = {}


class Requests(msgspec.Struct, frozen=True, kw_only=True):
    """What the host's nginx told of its requests since the agent started.

    ``lines`` were read, ``refused`` were not nginx's or not to be understood.
    """

    lines: int
    refused: int
    last_at: float | None = None


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """The rollout that holds this host's lease, or has not ended what it did here.

    ``expires_in`` are the lease's seconds, None where it is not alive. ``acting`` is what is being
    done to the host (``restart``, ``converge``, ``reboot``, ``run``, ``driver``, ``gpu-reset``,
    ``gpu-diag``; ``unknown`` where that was lost), since ``acting_since``: until that is over,
    nothing that a rollout drained returns by itself. ``problem`` says why leases cannot be kept.
    """

    rollout: str | None = None
    holder: str | None = None
    token: int | None = None
    expires_in: float | None = None
    acting: str | None = None
    acting_since: float | None = None
    problem: str | None = None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """``what`` was ``was`` when the host's fingerprint was recorded, and is ``now``.

    ``kind``: ``missing`` (a GPU that was there), ``new`` (one that was not), ``changed``,
    ``slower``, ``unknown`` (the GPUs cannot be read). ``gpu`` is a uuid.
    """

    kind: Literal["missing", "new", "changed", "slower", "unknown"]
    what: str
    was: str
    now: str
    gpu: str | None = None
    replica: str | None = None

    def __str__(self) -> str:
        """For a person, in one line."""
        return f"{self.what}: {self.now}, it was {self.was}"


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """How the host compares with its fingerprint, which was recorded at ``recorded_at``.

    Without the speed of its replicas, which is measured on demand only. ``problem`` says why what
    was recorded cannot be read.
    """

    recorded_at: float | None = None
    differences: tuple[Difference, ...] = ()
    problem: str | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the agent knows at ``at``. ``reasons`` say why the host is not ready.

    ``units`` are those of the host that are no replica's: nginx and NVIDIA's services. ``web_good``
    says whether the web configuration is in force as its file has it, None where there is none.
    """

    schema: int = SCHEMA
    host: str
    at: float
    accelerator: Literal["cuda", "cpu"]
    agent: Agent
    ready: bool
    reasons: tuple[str, ...] = ()
    collectors: tuple[Collector, ...] = ()
    gpus: Gpus | None = None
    replicas: tuple[Replica, ...] = ()
    units: tuple[Unit, ...] = ()
    notices: tuple[Notice, ...] = ()
    agent_check: AgentCheck | None = None
    health: Health | None = None
    xids: tuple[Xid, ...] = ()
    nvml: Nvml | None = None
    gpu_units: tuple[UnitOnGpu, ...] = ()
    requests: Requests | None = None
    web_good: bool | None = None
    web_problem: str | None = None
    rollout: Rollout | None = None
    fingerprint: Fingerprint | None = None


def dumps(status: Status) -> bytes:
    """*status* as the JSON of ``/status``."""
    return msgspec.json.encode(status)


def loads(data: bytes) -> Status:
    """Read the JSON of ``/status``. Raises :class:`StatusError`."""
    try:
        head = _head.decode(data)
        if head.schema > SCHEMA:
            raise StatusError(
                f"status of schema {head.schema} is newer than this program's ({SCHEMA}): "
                "upgrade farrier on this side"
            )
        return _status.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StatusError(f"not a status of Farrier's agent: {error}") from error


class _Head(msgspec.Struct):
    schema: int


# here and not where they are used: msgspec crashes where threads meet a type for the first time
_head = msgspec.json.Decoder(_Head)
_status = msgspec.json.Decoder(Status)
