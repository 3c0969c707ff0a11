"""The families about why a GPU's clocks are below what was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from farrier_agent.gpus import Gpu
from farrier_agent.metrics.family import Family, Sample, family

__all__ = ["FAMILIES", "samples"]

ACTIVE = family(
    "farrier_gpu_clock_event_active",
    "uuid reason",
    "Whether (1) this reason keeps the clocks down at the moment.",
    "gpu",
)
SECONDS = family(
    "farrier_gpu_clock_event_seconds_total",
    "uuid reason",
    "How long this reason kept the clocks down since the driver was loaded, in seconds.",
    "gpu",
)

FAMILIES: tuple[Family, ...] = (ACTIVE, SECONDS)


def samples(devices: Sequence[Gpu]) -> Iterator[tuple[Family, list[Sample]]]:
    """What there is of the clock events of *devices*, by family."""
    events = [((gpu.uuid, one.reason), one) for gpu in devices for one in gpu.clock_events]
    yield ACTIVE, [(key, one.active) for key, one in events]
    yield SECONDS, [(key, one.seconds_total) for key, one in events]
