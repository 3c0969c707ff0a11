"""The families about the rollout that has this host's lease, or left it half done."""

from __future__ import annotations

from collections.abc import Iterator

from farrier_agent.metrics.family import Family, Sample, family
from farrier_agent.status import Rollout

__all__ = ["FAMILIES", "samples"]

ACTING = family(
    "farrier_rollout_acting",
    "rollout",
    "Whether the rollout is doing something to this host (1): until that is over, nothing that it"
    " drained returns by itself.",
    "agent",
)
LEASE = family(
    "farrier_rollout_lease_seconds",
    "rollout",
    "Until the rollout's lease of this host runs out, in seconds; 0 when it has none any more.",
    "agent",
)

FAMILIES: tuple[Family, ...] = (ACTING, LEASE)


def samples(one: Rollout | None) -> Iterator[tuple[Family, list[Sample]]]:
    """What there is of *one*; nothing where no rollout has to do with this host."""
    if one is None or one.problem is not None:
        return
    labels = (one.rollout or "unknown",)
    yield ACTING, [(labels, one.acting is not None)]
    yield LEASE, [(labels, one.expires_in or 0.0)]
