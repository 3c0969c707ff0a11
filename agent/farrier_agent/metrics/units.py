"""The families about who holds GPUs: memory and processes by systemd unit. PIDs are in /status."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from farrier_agent.gpus import Gpu, UnitOnGpu
from farrier_agent.metrics.family import Family, Sample, family

__all__ = ["FAMILIES", "samples"]

MEMORY = family(
    "farrier_gpu_unit_memory_bytes",
    "uuid unit",
    "Memory of the GPU that the processes of a systemd unit hold, in bytes.",
    "process",
)
PROCESSES = family(
    "farrier_gpu_unit_processes",
    "uuid unit",
    "Processes of a systemd unit that hold the GPU.",
    "process",
)
UNMANAGED = family(
    "farrier_gpu_unmanaged_processes",
    "uuid",
    "Processes on the GPU of no replica that was given it.",
    "process",
)

FAMILIES: tuple[Family, ...] = (MEMORY, PROCESSES, UNMANAGED)


def samples(
    devices: Sequence[Gpu], units: Sequence[UnitOnGpu]
) -> Iterator[tuple[Family, list[Sample]]]:
    """What there is of *units* and of the processes on *devices*, by family."""
    keys = [((one.uuid, one.unit), one) for one in units]
    yield MEMORY, [(key, one.memory_bytes) for key, one in keys]
    yield PROCESSES, [(key, one.processes) for key, one in keys]
    yield UNMANAGED, [((gpu.uuid,), _unmanaged(gpu)) for gpu in devices]


def _unmanaged(gpu: Gpu) -> int | None:
    if gpu.processes is None:
        return None
    return sum(one.managed is False for one in gpu.processes)
