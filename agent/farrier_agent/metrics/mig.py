"""The families about MIG devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from farrier_agent.gpus import Gpu
from farrier_agent.metrics.family import Family, Sample, family

__all__ = ["FAMILIES", "samples"]

INFO = family(
    "farrier_gpu_mig_device_info",
    "uuid mig_uuid gpu_instance compute_instance profile",
    "Which part of a GPU a MIG device is; always 1.",
    "gpu",
)
TOTAL = family(
    "farrier_gpu_mig_memory_total_bytes", "uuid mig_uuid", "Memory of the MIG device.", "gpu"
)
USED = family(
    "farrier_gpu_mig_memory_used_bytes", "uuid mig_uuid", "Memory of it that is in use.", "gpu"
)

FAMILIES: tuple[Family, ...] = (INFO, TOTAL, USED)


def samples(devices: Sequence[Gpu]) -> Iterator[tuple[Family, list[Sample]]]:
    """What there is of the MIG devices of *devices*, by family."""
    parts = [((gpu.uuid, one.uuid), one) for gpu in devices for one in gpu.mig_devices]
    yield (
        INFO,
        [
            ((*key, str(one.gpu_instance), str(one.compute_instance), one.profile or ""), 1)
            for key, one in parts
        ],
    )
    yield TOTAL, [(key, one.memory_total_bytes) for key, one in parts]
    yield USED, [(key, one.memory_used_bytes) for key, one in parts]
