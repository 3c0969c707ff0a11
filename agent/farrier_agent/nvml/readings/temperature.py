"""Temperatures and fans."""

from __future__ import annotations

from typing import Any

from farrier_agent.nvml.probe import Probe

__all__ = ["fast", "slow", "static"]

GPU = 0  # NVML_TEMPERATURE_GPU
SHUTDOWN, SLOWDOWN = 0, 1  # NVML_TEMPERATURE_THRESHOLD_*


def static(probe: Probe) -> dict[str, Any]:
    """Thresholds in degrees.

    GPUs from Hopper on may have none, but limits relative to the margin (T.Limit, field values
    193 to 196): these are no temperatures, and which sensor they count from is not told.
    """
    slowdown = probe.ask("nvmlDeviceGetTemperatureThreshold", SLOWDOWN)
    shutdown = probe.ask("nvmlDeviceGetTemperatureThreshold", SHUTDOWN)
    probe.kept["fans"] = probe.value("fans", probe.ask("nvmlDeviceGetNumFans")) or 0
    return {
        "temperature_slowdown_celsius": probe.value("temperature_slowdown_celsius", slowdown),
        "temperature_shutdown_celsius": probe.value("temperature_shutdown_celsius", shutdown),
    }


def slow(probe: Probe) -> dict[str, Any]:
    """Fans; boards without any (SXM) have none to tell."""
    speeds = [
        probe.value("fan_speed_ratios", probe.ask("nvmlDeviceGetFanSpeed_v2", fan))
        for fan in range(probe.kept.get("fans", 0))
    ]
    # a speed stands for the fan of its place: with one missing the others would move
    return {"fan_speed_ratios": () if None in speeds else tuple(speeds)}


def fast(probe: Probe) -> dict[str, Any]:
    """Temperatures, and how far the GPU is from being slowed down for one."""
    degrees = probe.ask("nvmlDeviceGetTemperatureV", GPU)
    if degrees is None:
        degrees = probe.ask("nvmlDeviceGetTemperature", GPU)
    # parts without a sensor in their memory answer 0 instead of NOT_SUPPORTED (T4, L4)
    memory = probe.field("memory_temperature_celsius") or None
    margin = probe.ask("nvmlDeviceGetMarginTemperature")
    return {
        "temperature_celsius": probe.value("temperature_celsius", degrees),
        "memory_temperature_celsius": probe.value("memory_temperature_celsius", memory),
        "temperature_margin_celsius": probe.value("temperature_margin_celsius", margin),
    }
