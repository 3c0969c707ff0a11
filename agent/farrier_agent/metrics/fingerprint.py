"""The families about the host's fingerprint: when it was recorded, and whether it still fits."""

from __future__ import annotations

from collections.abc import Iterator

from farrier_agent.metrics.family import Family, Sample, family
from farrier_agent.status import Fingerprint

__all__ = ["FAMILIES", "samples"]

KINDS = ("missing", "new", "changed", "unknown")

RECORDED = family(
    "farrier_fingerprint_recorded_timestamp_seconds",
    "",
    "When the host's fingerprint was recorded, in seconds since the epoch.",
    "agent",
)
DIFFERENCES = family(
    "farrier_fingerprint_differences",
    "kind",
    "In how many ways the host is not as its fingerprint was recorded. kind: missing or new (a"
    " GPU), changed, unknown (the GPUs cannot be read).",
    "agent",
)

FAMILIES: tuple[Family, ...] = (RECORDED, DIFFERENCES)


def samples(one: Fingerprint | None) -> Iterator[tuple[Family, list[Sample]]]:
    """What there is of *one*; nothing where none was recorded."""
    if one is None or one.recorded_at is None:
        return
    yield RECORDED, [((), one.recorded_at)]
    counts = {kind: sum(it.kind == kind for it in one.differences) for kind in KINDS}
    yield DIFFERENCES, [((kind,), count) for kind, count in counts.items()]
