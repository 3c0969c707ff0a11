"""Power and energy."""

from __future__ import annotations

from typing import Any

from farrier_agent.nvml.probe import Probe

__all__ = ["fast", "slow", "static"]


def static(probe: Probe) -> dict[str, Any]:
    """The limits that limits can be set between."""
    bounds = probe.ask("nvmlDeviceGetPowerManagementLimitConstraints") or (None, None)
    default = probe.ask("nvmlDeviceGetPowerManagementDefaultLimit")
    return {
        "power_default_limit_watts": probe.value("power_default_limit_watts", default),
        "power_min_limit_watts": probe.value("power_min_limit_watts", bounds[0]),
        "power_max_limit_watts": probe.value("power_max_limit_watts", bounds[1]),
    }


def slow(probe: Probe) -> dict[str, Any]:
    """The mean power of a second."""
    raw = probe.field("power_average_watts")
    return {"power_average_watts": probe.value("power_average_watts", raw)}


def fast(probe: Probe) -> dict[str, Any]:
    """Power now, the limit in force, energy since the driver was loaded."""
    # the call gives the mean on Ampere and later (nvml.h), the field always the power now
    power = probe.field_or("power_watts", "nvmlDeviceGetPowerUsage")
    limit = probe.field_or("power_limit_watts", "nvmlDeviceGetEnforcedPowerLimit")
    energy = probe.field_or("energy_joules_total", "nvmlDeviceGetTotalEnergyConsumption")
    return {
        "power_watts": probe.value("power_watts", power),
        "power_limit_watts": probe.value("power_limit_watts", limit),
        "energy_joules_total": probe.value("energy_joules_total", energy),
    }
