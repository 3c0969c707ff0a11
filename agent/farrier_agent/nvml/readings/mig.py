"""How the GPU is set up: persistence, compute mode, and its MIG devices."""

from __future__ import annotations

from typing import Any

from farrier_agent.gpus import MigDevice
from farrier_agent.nvml.probe import Probe
from farrier_agent.nvml.readings.memory import split

__all__ = ["COMPUTE_MODES", "fast", "slow"]

COMPUTE_MODES = {  # NVML_COMPUTEMODE_*
    0: "default",
    1: "exclusive_thread",
    2: "prohibited",
    3: "exclusive_process",
}


def fast(probe: Probe) -> dict[str, Any]:
    """Whether the driver stays loaded without a client."""
    raw = probe.ask("nvmlDeviceGetPersistenceMode")
    return {"persistence_mode": probe.value("persistence_mode", raw)}


def slow(probe: Probe) -> dict[str, Any]:
    """The compute mode and the MIG devices."""
    mode = probe.value("compute_mode", probe.ask("nvmlDeviceGetComputeMode"))
    mig = probe.ask("nvmlDeviceGetMigMode")
    enabled = probe.value("mig_enabled", mig[0] if mig else None)
    return {
        "compute_mode": COMPUTE_MODES.get(mode),
        "mig_enabled": enabled,
        "mig_devices": _devices(probe) if enabled else (),
    }


def _devices(probe: Probe) -> tuple[MigDevice, ...]:
    count = probe.value("mig_devices", probe.ask("nvmlDeviceGetMaxMigDeviceCount")) or 0
    found = []
    for place in range(count):
        part = probe.ask_of(probe.handle, "nvmlDeviceGetMigDeviceHandleByIndex", place)
        device = None if part is None else _device(probe, part)
        if device is not None:
            found.append(device)
    return tuple(found)


def _device(probe: Probe, part: Any) -> MigDevice | None:
    uuid = probe.text("mig_uuid", probe.ask_of(part, "nvmlDeviceGetUUID"))
    gpu_instance = probe.value("mig_instance", probe.ask_of(part, "nvmlDeviceGetGpuInstanceId"))
    compute_instance = probe.value(
        "mig_instance", probe.ask_of(part, "nvmlDeviceGetComputeInstanceId")
    )
    if uuid is None or gpu_instance is None or compute_instance is None:
        return None
    name = probe.text("mig_profile", probe.ask_of(part, "nvmlDeviceGetName"))
    sizes = split(probe, probe.ask_of(part, "nvmlDeviceGetMemoryInfo", probe.nvml.nvmlMemory_v2))
    return MigDevice(
        uuid=uuid,
        gpu_instance=gpu_instance,
        compute_instance=compute_instance,
        profile=_profile(name),
        memory_total_bytes=sizes.get("memory_total_bytes"),
        memory_used_bytes=sizes.get("memory_used_bytes"),
    )


def _profile(name: str | None) -> str | None:
    """The last word of "NVIDIA H200 MIG 1g.18gb"."""
    return name.partition(" MIG ")[2].strip() or None if name else None
