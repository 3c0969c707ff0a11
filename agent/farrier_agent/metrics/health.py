"""The families about verdicts, and the reasons for them."""

from __future__ import annotations

from collections.abc import Iterator

from farrier_agent.metrics.family import Family, Sample, family, one_hot
from farrier_agent.status import Health, Reason

__all__ = ["FAMILIES", "STATES", "samples"]

STATES = ("healthy", "degraded", "unhealthy", "unknown")
"""The verdicts that ``farrier_host_verdict`` and its like are one-hot over."""

HOST = family("farrier_host_verdict", "state", "The verdict on the host: 1 for it.", "health")
GPU = family("farrier_gpu_verdict", "uuid state", "The verdict on a GPU: 1 for it.", "health")
REPLICA = family(
    "farrier_replica_verdict",
    "replica state",
    "The verdict on a replica and the GPUs that it uses: 1 for it.",
    "health",
)
REASON = family(
    "farrier_health_reason",
    "rule state uuid replica",
    "A reason for a verdict that is not healthy: 1 while it holds. uuid and replica are empty "
    "where it is about none. What to do about it: farrier-agent status, and the rule's runbook.",
    "health",
)
HELD_BACK = family(
    "farrier_health_drain_held_back",
    "replica",
    "Whether (1) the replica stays open although its health calls for a drain: no other would "
    "serve its model.",
    "health",
)

FAMILIES: tuple[Family, ...] = (HOST, GPU, REPLICA, REASON, HELD_BACK)


def samples(health: Health) -> Iterator[tuple[Family, list[Sample]]]:
    """What there is of *health*, by family."""
    yield HOST, one_hot((), STATES, health.host.state)
    yield (
        GPU,
        [
            sample
            for uuid, verdict in health.gpus.items()
            for sample in one_hot((uuid,), STATES, verdict.state)
        ],
    )
    yield (
        REPLICA,
        [
            sample
            for name, verdict in health.replicas.items()
            for sample in one_hot((name,), STATES, verdict.state)
        ],
    )
    yield (
        REASON,
        [((one.rule, one.state, one.gpu or "", one.replica or ""), 1) for one in _reasons(health)],
    )
    yield (
        HELD_BACK,
        [
            ((name,), any(one.held_back is not None for one in verdict.reasons))
            for name, verdict in health.replicas.items()
        ],
    )


def _reasons(health: Health) -> Iterator[Reason]:
    yield from health.host.reasons
    for verdicts in (health.gpus, health.replicas):
        for verdict in verdicts.values():
            yield from verdict.reasons
