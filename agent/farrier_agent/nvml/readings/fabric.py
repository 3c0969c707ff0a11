"""The NVSwitch fabric, and what the driver wants done with the GPU."""

from __future__ import annotations

from typing import Any

from farrier_agent.gpus import Fabric
from farrier_agent.nvml.probe import Probe

__all__ = ["ACTIONS", "STATES", "fast", "problems"]

STATES = {1: "not_started", 2: "in_progress", 3: "completed"}
NOT_SUPPORTED, COMPLETED = 0, 3

ACTIONS = {  # NVML_GPU_RECOVERY_ACTION_*
    0: "none",
    1: "gpu_reset",
    2: "node_reboot",
    3: "drain_p2p",
    4: "drain_and_reset",
    5: "imex_domain",
    6: "bus_reset",
    7: "system_reboot",
}

_FAULTS = (  # where in the mask (NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_*), which value is the fault
    (0, 1, "degraded_bandwidth"),
    (2, 1, "route_recovery"),
    (4, 1, "route_unhealthy"),
    (6, 1, "access_timeout"),
    (12, 2, "partition_not_assigned"),
    (14, 2, "fabric_manager_disconnected"),
)
_CONFIGURATION = {  # NVML_GPU_FABRIC_HEALTH_MASK_INCORRECT_CONFIGURATION_*
    0: None,
    1: None,
    2: "incorrect_system_guid",
    3: "incorrect_chassis_serial",
    4: "no_partition",
    5: "insufficient_nvlinks",
    6: "incompatible_firmware",
    7: "invalid_location",
    8: "gpu_state_invalid",
}
_SUMMARY = {2: "unhealthy", 3: "limited_capacity"}  # NVML_GPU_FABRIC_HEALTH_SUMMARY_*


def fast(probe: Probe) -> dict[str, Any]:
    """The GPU's registration with the fabric, and the recovery action."""
    raw = probe.value("recovery_action", probe.field("recovery_action"))
    return {
        "fabric": _fabric(probe),
        "recovery_action": None if raw is None else ACTIONS.get(raw, "unknown"),
    }


def problems(mask: int, summary: int = 0) -> tuple[str, ...]:
    """The faults in a health *mask*; those of its *summary* only where the mask has none.

    A part of the mask with a value that NVML does not define says nothing.
    """
    found = [word for shift, fault, word in _FAULTS if mask >> shift & 3 == fault]
    configuration = _CONFIGURATION.get(mask >> 8 & 15, "incorrect_configuration")
    if configuration:
        found.append(configuration)
    if not found and summary in _SUMMARY:
        found.append(_SUMMARY[summary])
    return tuple(found)


def _fabric(probe: Probe) -> Fabric | None:
    function = "nvmlDeviceGetGpuFabricInfoV"
    third, second = probe.nvml.c_nvmlGpuFabricInfo_v3_t, probe.nvml.c_nvmlGpuFabricInfo_v2_t
    info = probe.fill(function, third())
    if info is None:
        info = probe.fill(function, second())
    if info is None:
        return None
    if info.state == NOT_SUPPORTED:  # by the GPU itself: it has no way to a switch
        probe.never(function, third)
        probe.never(function, second)
        return None
    if info.state not in STATES:
        probe.odd("fabric", info.state)
        return None
    registered = info.state == COMPLETED and info.status == 0
    return Fabric(
        state=STATES[info.state],
        status=info.status,
        clique=info.cliqueId if registered else None,
        problems=problems(info.healthMask, getattr(info, "healthSummary", 0)),
    )
