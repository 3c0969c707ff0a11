"""The families about GPUs: ``farrier_gpu…``. A host without one has none of them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from farrier_agent.metrics.family import Sample, gauge
from farrier_agent.status import Gpus

__all__ = ["gpu_families"]

# field of status.Gpu, help; the metric is farrier_gpu_<field>
_VALUES = (
    ("memory_total_bytes", "Memory of the GPU."),
    ("memory_used_bytes", "Memory in use, without what the driver reserves."),
    ("memory_free_bytes", "Memory that can still be allocated."),
    ("memory_reserved_bytes", "Memory that the driver reserves for itself."),
    ("utilization_ratio", "Share of NVML's last sample period in which a kernel was running."),
    ("memory_busy_ratio", "Share of NVML's last sample period in which memory was accessed."),
    ("temperature_celsius", "Temperature of the GPU's die."),
    ("power_watts", "Power drawn by the board."),
    ("power_limit_watts", "Power limit in force."),
    ("graphics_clock_hertz", "Present clock of the graphics domain."),
    ("sm_clock_hertz", "Present clock of the streaming multiprocessors."),
    ("memory_clock_hertz", "Present clock of the memory."),
)


def gpu_families(gpus: Gpus) -> Iterator[Metric]:
    """What NVML says of *gpus*."""
    # not farrier_gpu_count: promtool reserves the suffix for histograms and summaries
    yield gauge("farrier_gpus", "GPUs that NVML sees on the host.", (), [((), gpus.count)])
    yield gauge(
        "farrier_gpu_driver_info",
        "Versions of the GPU driver and of NVML.",
        ("driver", "nvml"),
        [((gpus.driver_version or "", gpus.nvml_version or ""), 1)],
    )
    yield gauge(
        "farrier_gpu_info",
        "Which GPU a uuid is. Its index can change at a reboot.",
        ("uuid", "index", "name", "pci_bus_id"),
        [
            ((gpu.uuid, str(gpu.index), gpu.name or "", gpu.pci_bus_id or ""), 1)
            for gpu in gpus.devices
        ],
    )
    yield gauge(
        "farrier_gpu_up",
        "Whether the GPU answers; 0 when NVML says that it is lost.",
        ("uuid",),
        [((gpu.uuid,), gpu.up) for gpu in gpus.devices],
    )
    for field, text in _VALUES:
        samples: list[Sample] = [((gpu.uuid,), getattr(gpu, field)) for gpu in gpus.devices]
        yield gauge(f"farrier_gpu_{field}", text, ("uuid",), samples)
