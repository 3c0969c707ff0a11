"""The families about replicas, their drains and their health: ``farrier_replica…``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from farrier_agent.metrics.family import Family, Sample, family, one_hot
from farrier_agent.status import Drain, Replica

__all__ = ["FAMILIES", "HEALTH", "PHASES", "faulty", "samples"]

PHASES = ("stopped", "starting", "warming", "ready", "draining", "drained", "failed")
"""The states of a replica that ``farrier_replica_phase`` is one-hot over."""
HEALTH = ("idle", "busy", "suspect", "wedged", "unknown")
"""The verdicts that ``farrier_replica_health`` is one-hot over."""

Value = Callable[[Replica], float | None]


def _under_way(one: Replica) -> Drain | None:
    return one.drain if one.drain and not one.drain.over else None


def _last(one: Replica) -> Drain | None:
    """The newest drain that came to its end: the replica may still be held by it."""
    return one.drain if one.drain and one.drain.over else one.last_drain


def _seconds(drain: Drain | None) -> float | None:
    return drain.seconds if drain else None


def _cut(drain: Drain | None) -> float | None:
    if drain is None:
        return None
    return drain.cut if drain.forced else 0


# name, help; the metric is farrier_replica_<name>
_VALUES: tuple[tuple[str, str, Value], ...] = (
    (
        "up",
        "Whether the replica's unit is active and its engine answers for its model.",
        lambda one: one.up,
    ),
    (
        "gate_open",
        "Whether the replica's gate is open.",
        lambda one: None if one.gate is None else one.gate == "open",
    ),
    (
        "restart_pending",
        "Whether the running engine was started from another configuration than the present one.",
        lambda one: one.restart_pending,
    ),
    (
        "put_back",
        "Whether the replica's unit is the one from before a change that did not do.",
        lambda one: one.put_back,
    ),
    (
        "phase_since_timestamp_seconds",
        "When the replica entered its phase, in seconds since the epoch.",
        lambda one: one.since_at,
    ),
    (
        "in_flight",
        "Requests in flight: nginx's connections to the engine, or the engine's own count.",
        lambda one: one.in_flight,
    ),
    (
        "strangers",
        "Connections to the engine's port that are not nginx's, past the gate.",
        lambda one: one.strangers,
    ),
    (
        "held",
        "Whether a drain that nobody took back keeps the replica closed, or is about to.",
        lambda one: None if one.phase is None else one.drain is not None,
    ),
    (
        "drain_seconds",
        "How long the drain that is under way has taken so far, in seconds.",
        lambda one: _seconds(_under_way(one)),
    ),
    (
        "drain_deadline_timestamp_seconds",
        "When the deadline of the drain under way passes, in seconds since the epoch.",
        lambda one: drain.deadline_at if (drain := _under_way(one)) else None,
    ),
    (
        "last_drain_seconds",
        "How long the last drain that came to its end took, in seconds.",
        lambda one: _seconds(_last(one)),
    ),
    (
        "requests_cut_last_drain",
        "Requests that the last drain did not let finish.",
        lambda one: _cut(_last(one)),
    ),
    (
        "restarts",
        "Restarts of the unit by systemd itself, after failures, since it was started by somebody.",
        lambda one: one.restarts,
    ),
    (
        "health_restarts",
        "Restarts of the replica within the last hour because it was wedged.",
        lambda one: None if one.phase is None else one.health_restarts,
    ),
    (
        "nodes",
        "Nodes of the replica's Ray that live; absent where it has no Ray.",
        lambda one: one.nodes,
    ),
    (
        "nodes_wanted",
        "Nodes that the replica's Ray has when it is whole; absent where it has no Ray.",
        lambda one: one.nodes_wanted,
    ),
)

INFO = family(
    "farrier_replica_info",
    "replica model engine",
    "Which model a replica serves, and with which engine; always 1.",
    "replicas",
)
PHASE = family(
    "farrier_replica_phase",
    "replica phase",
    "The phase of a replica: 1 for the one that it is in.",
    "replicas",
)
HEALTH_STATE = family(
    "farrier_replica_health",
    "replica state",
    "The verdict on a replica's progress: 1 for the one that holds.",
    "replicas",
)
VALUES = tuple(
    (family(f"farrier_replica_{name}", "replica", text, "replicas"), value)
    for name, text, value in _VALUES
)

FAULTY = family(
    "farrier_replica_engine_faulty_lines",
    "replica",
    "Lines of the engine's last page of metrics that are not passed on because they are faulty.",
    "engine",
)

FAMILIES: tuple[Family, ...] = (INFO, PHASE, HEALTH_STATE, *(one for one, _ in VALUES), FAULTY)


def samples(replicas: Sequence[Replica]) -> Iterator[tuple[Family, list[Sample]]]:
    """What is known of *replicas*, by family."""
    yield INFO, [((one.name, one.model, one.engine), 1) for one in replicas]
    yield PHASE, [sample for one in replicas for sample in one_hot((one.name,), PHASES, one.phase)]
    yield (
        HEALTH_STATE,
        [sample for one in replicas for sample in one_hot((one.name,), HEALTH, one.health)],
    )
    for family_, value in VALUES:
        yield family_, [((one.name,), value(one)) for one in replicas]


def faulty(lines: Mapping[str, int]) -> tuple[Family, list[Sample]]:
    """*lines* of each replica's engine that are not passed on."""
    return FAULTY, [((name,), count) for name, count in lines.items()]
