"""Clocks, and what holds them down."""

from __future__ import annotations

from typing import Any

from farrier_agent.gpus import ClockEvent
from farrier_agent.nvml import fields
from farrier_agent.nvml.probe import Probe

__all__ = ["REASONS", "fast", "slow", "static"]

GRAPHICS, SM, MEMORY, VIDEO = 0, 1, 2, 3  # NVML_CLOCK_*

REASONS = {  # nvmlClocksEventReason*
    "idle": 0x1,
    "applications_clocks": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal": 0x20,
    "hw_thermal": 0x40,
    "hw_power_brake": 0x80,
    "display": 0x100,
    "low_utilization": 0,  # 0: there is a time of it and no bit
    "reliability": 0,
}
"""The bit of each reason that :class:`~farrier_agent.gpus.ClockEvent` names."""

_TIMED = frozenset(field.name for field in fields.CLOCK_EVENTS)


def static(probe: Probe) -> dict[str, Any]:
    """The highest clocks."""
    # which of the reasons this GPU can tell; none that it cannot is ever called inactive
    probe.kept["reasons"] = _mask(probe, "nvmlDeviceGetSupportedClocks")
    return {
        f"{name}_max_clock_hertz": probe.value(
            f"{name}_max_clock_hertz", probe.ask("nvmlDeviceGetMaxClockInfo", clock)
        )
        for name, clock in (("graphics", GRAPHICS), ("sm", SM), ("memory", MEMORY))
    }


def slow(probe: Probe) -> dict[str, Any]:
    """The clock of the video engines."""
    raw = probe.ask("nvmlDeviceGetClockInfo", VIDEO)
    return {"video_clock_hertz": probe.value("video_clock_hertz", raw)}


def fast(probe: Probe) -> dict[str, Any]:
    """Clocks, the performance state and the reasons for both."""
    state = probe.ask("nvmlDeviceGetPerformanceState")
    if state == 32:  # NVML_PSTATE_UNKNOWN
        state = None
    return {
        "graphics_clock_hertz": probe.value(
            "graphics_clock_hertz", probe.ask("nvmlDeviceGetClockInfo", GRAPHICS)
        ),
        "sm_clock_hertz": probe.value("sm_clock_hertz", probe.ask("nvmlDeviceGetClockInfo", SM)),
        "memory_clock_hertz": probe.value(
            "memory_clock_hertz", probe.ask("nvmlDeviceGetClockInfo", MEMORY)
        ),
        "performance_state": probe.value("performance_state", state),
        "clock_events": _events(probe),
    }


def _events(probe: Probe) -> tuple[ClockEvent, ...]:
    active, supported = _mask(probe, "nvmlDeviceGetCurrentClocks"), probe.kept.get("reasons")
    found = []
    for reason, bit in REASONS.items():
        raw = probe.field(reason) if reason in _TIMED else None
        seconds = probe.value("clock_event_seconds_total", raw)
        told = None
        if bit and active is not None and (supported is None or bit & (supported | active)):
            told = bool(active & bit)
        if told is not None or seconds is not None:
            found.append(ClockEvent(reason=reason, active=told, seconds_total=seconds))
    return tuple(found)


def _mask(probe: Probe, function: str) -> int | None:
    mask = probe.ask(f"{function}EventReasons")  # from driver 535 on
    if mask is None:
        mask = probe.ask(f"{function}ThrottleReasons")
    return None if mask is None else int(mask)
