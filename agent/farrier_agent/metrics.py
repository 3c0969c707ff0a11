"""The text that ``/metrics`` serves, made from a snapshot. An unknown value makes no sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from farrier_agent.status import Gpus, Replica, Status

__all__ = ["CONTENT_TYPE", "UNIT_STATES", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

UNIT_STATES = ("active", "activating", "deactivating", "failed", "inactive", "reloading")
"""The states that ``farrier_unit_state`` is one-hot over; in a rarer one all of them are 0."""

Sample = tuple[tuple[str, ...], float | None]

# field of status.Gpu, help; the metric is farrier_gpu_<field>
_GPU_VALUES = (
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


class _Families(Collector):
    """Hands a list of families to a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def render(status: Status) -> bytes:
    """*status*, and the agent's own process, in the text exposition format 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Families(_families(status)))
    return generate_latest(registry)


def _families(status: Status) -> Iterator[Metric]:
    agent = status.agent
    families = (
        _gauge(
            "farrier_agent_build_info",
            "The agent's version and that of its Python.",
            ("version", "python"),
            [((agent.version, agent.python), 1)],
        ),
        _gauge(
            "farrier_agent_info",
            "What kind of host the agent was told that this is.",
            ("accelerator",),
            [((status.accelerator,), 1)],
        ),
        *_collectors(status),
        *_units(status.replicas),
        *_replicas(status.replicas),
        *(_gpus(status.gpus) if status.gpus else ()),
    )
    return (family for family in families if family.samples)


def _collectors(status: Status) -> Iterator[Metric]:
    ran = [one for one in status.collectors if one.duration_seconds is not None]
    label = ("collector",)
    yield _gauge(
        "farrier_collector_success",
        "Whether the collector's last attempt succeeded.",
        label,
        [((one.name,), one.success) for one in ran],
    )
    yield _gauge(
        "farrier_collector_duration_seconds",
        "How long the collector's last attempt took.",
        label,
        [((one.name,), one.duration_seconds) for one in ran],
    )
    yield _gauge(
        "farrier_collector_last_success_timestamp_seconds",
        "When the collector last succeeded, in seconds since the epoch.",
        label,
        [((one.name,), one.last_success_at) for one in ran],
    )


def _units(replicas: Iterable[Replica]) -> Iterator[Metric]:
    units = [replica.unit_state for replica in replicas if replica.unit_state]
    yield _gauge(
        "farrier_unit_state",
        "The state of a replica's systemd unit: 1 for the state that it is in.",
        ("unit", "state"),
        [
            ((unit.name, state), unit.active_state == state)
            for unit in units
            for state in UNIT_STATES
        ],
    )


def _replicas(replicas: tuple[Replica, ...]) -> Iterator[Metric]:
    label = ("replica",)
    yield _gauge(
        "farrier_replica_info",
        "Which model a replica serves, and with which engine.",
        ("replica", "model", "engine"),
        [((one.name, one.model, one.engine), 1) for one in replicas],
    )
    yield _gauge(
        "farrier_replica_up",
        "Whether the replica's unit is active and its engine answers for its model.",
        label,
        [((one.name,), one.up) for one in replicas],
    )
    yield _gauge(
        "farrier_replica_gate_open",
        "Whether the replica's gate is open.",
        label,
        [((one.name,), None if one.gate is None else one.gate == "open") for one in replicas],
    )
    yield _gauge(
        "farrier_replica_restart_pending",
        "Whether the running engine was started from another configuration than the present one.",
        label,
        [((one.name,), one.restart_pending) for one in replicas],
    )


def _gpus(gpus: Gpus) -> Iterator[Metric]:
    # not farrier_gpu_count: promtool reserves the suffix for histograms and summaries
    yield _gauge("farrier_gpus", "GPUs that NVML sees on the host.", (), [((), gpus.count)])
    yield _gauge(
        "farrier_gpu_driver_info",
        "Versions of the GPU driver and of NVML.",
        ("driver", "nvml"),
        [((gpus.driver_version or "", gpus.nvml_version or ""), 1)],
    )
    yield _gauge(
        "farrier_gpu_info",
        "Which GPU a uuid is. Its index can change at a reboot.",
        ("uuid", "index", "name", "pci_bus_id"),
        [
            ((gpu.uuid, str(gpu.index), gpu.name or "", gpu.pci_bus_id or ""), 1)
            for gpu in gpus.devices
        ],
    )
    yield _gauge(
        "farrier_gpu_up",
        "Whether the GPU answers; 0 when NVML says that it is lost.",
        ("uuid",),
        [((gpu.uuid,), gpu.up) for gpu in gpus.devices],
    )
    for field, text in _GPU_VALUES:
        samples: list[Sample] = [((gpu.uuid,), getattr(gpu, field)) for gpu in gpus.devices]
        yield _gauge(f"farrier_gpu_{field}", text, ("uuid",), samples)


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Iterable[Sample]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric(values, float(value))
    return family
