"""Which numbers a GPU can have, as data, and their conversion to base units.

Drivers are known to answer 345 degrees, 808334905 percent or 2^63 bytes (NVIDIA/dcgm-exporter#312,
#418, NVIDIA/DCGM#199). Such a sample is dropped and counted by its field, never shown.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["RANGES", "Range", "convert", "convert_text"]

Number = float | int | bool


class Range(NamedTuple):
    """What NVML may answer, from *low* to *high* in NVML's unit, both included.

    The value in base units is the answer times *times*, or, as a float, divided by *per*. *flag*
    makes it a bool.
    """

    low: int
    high: int
    times: int = 1
    per: int | None = None
    flag: bool = False


_PERCENT = Range(0, 100, per=100)
_POWER = Range(0, 10_000_000, per=1000)  # mW; no board draws 10 kW
_CLOCK = Range(0, 99_999, times=1_000_000)  # MHz; memory clocks are counted in the tens of GHz
_THRESHOLD = Range(1, 200, per=1)
_COUNT = Range(0, 2**53)  # no error counter gets there, and JSON's numbers are exact up to it
_BYTES = Range(0, 2**50)
_FLAG = Range(0, 1, flag=True)
_NVLINK_KIB = Range(0, 2**54 - 1, times=1024)

RANGES = {
    "memory_total_bytes": Range(1, 2**50),
    "memory_used_bytes": _BYTES,
    "memory_free_bytes": _BYTES,
    "memory_reserved_bytes": _BYTES,
    "process_memory_bytes": _BYTES,
    "process_pid": Range(1, 2**22),  # PID_MAX_LIMIT of 64-bit kernels
    "utilization_ratio": _PERCENT,
    "memory_busy_ratio": _PERCENT,
    "encoder_ratio": _PERCENT,
    "decoder_ratio": _PERCENT,
    "temperature_celsius": Range(-50, 150, per=1),
    "memory_temperature_celsius": Range(-50, 150, per=1),
    "temperature_margin_celsius": Range(-150, 200, per=1),
    "temperature_slowdown_celsius": _THRESHOLD,
    "temperature_shutdown_celsius": _THRESHOLD,
    "fan_speed_ratios": Range(0, 200, per=100),  # of the intended speed: above 100 % is possible
    "fans": Range(0, 64),
    "power_watts": _POWER,
    "power_average_watts": _POWER,
    "power_limit_watts": _POWER,
    "power_default_limit_watts": _POWER,
    "power_min_limit_watts": _POWER,
    "power_max_limit_watts": _POWER,
    "energy_joules_total": Range(0, 10**16, per=1000),  # mJ; 10 kW for thirty years
    "graphics_clock_hertz": _CLOCK,
    "sm_clock_hertz": _CLOCK,
    "memory_clock_hertz": _CLOCK,
    "video_clock_hertz": _CLOCK,
    "graphics_max_clock_hertz": _CLOCK,
    "sm_max_clock_hertz": _CLOCK,
    "memory_max_clock_hertz": _CLOCK,
    "clock_event_seconds_total": Range(0, 10**18, per=10**9),  # ns; thirty years
    "performance_state": Range(0, 15),
    "pcie_generation": Range(1, 10),
    "pcie_max_generation": Range(1, 10),
    "pcie_width": Range(1, 32),
    "pcie_max_width": Range(1, 32),
    "pcie_replays_total": _COUNT,
    "pcie_correctable_errors_total": _COUNT,
    "pcie_fatal_errors_total": _COUNT,
    "pcie_non_fatal_errors_total": _COUNT,
    "pcie_transmit_bytes_total": Range(0, 2**63 - 2**20),
    "pcie_receive_bytes_total": Range(0, 2**63 - 2**20),
    "nvlinks": Range(0, 128),
    "nvlink_state": Range(0, 255),
    "nvlink_replay_errors_total": _COUNT,
    "nvlink_recovery_errors_total": _COUNT,
    "nvlink_crc_errors_total": _COUNT,
    "nvlink_effective_errors_total": _COUNT,
    "nvlink_symbol_errors_total": _COUNT,
    "nvlink_transmit_bytes_total": _NVLINK_KIB,
    "nvlink_receive_bytes_total": _NVLINK_KIB,
    "nvlink_link_transmit_bytes": Range(0, 2**63 - 2**20),
    "nvlink_link_receive_bytes": Range(0, 2**63 - 2**20),
    "ecc_enabled": _FLAG,
    "ecc_errors": _COUNT,
    "sram_threshold_exceeded": _FLAG,
    "remapped_rows": Range(0, 10**6),
    "row_remap_pending": _FLAG,
    "row_remap_failed": _FLAG,
    "retired_pages": Range(0, 10**6),
    "retired_pages_pending": _FLAG,
    "recovery_action": Range(0, 255),
    "persistence_mode": _FLAG,
    "compute_mode": Range(0, 255),
    "mig_enabled": _FLAG,
    "mig_devices": Range(0, 128),
    "mig_instance": Range(0, 1024),
    "minor_number": Range(0, 2**20),
    "compute_capability": Range(0, 99),
}
"""By field: one of :class:`~farrier_agent.gpus.Gpu`, or a part of one."""

TEXT_LIMIT = 96
"""Characters; NVML's longest names (NVML_DEVICE_NAME_V2_BUFFER_SIZE) fit."""


def convert(field: str, raw: float) -> Number | None:
    """*raw* of NVML as the value of *field*, None where no GPU can have it (also for NaN)."""
    low, high, times, per, flag = RANGES[field]
    if not low <= raw <= high:
        return None
    if flag:
        return bool(raw)
    return int(raw) * times if per is None else raw / per


def convert_text(raw: str | bytes) -> str | None:
    """A name or a version as a line of ASCII; None for anything else."""
    if isinstance(raw, bytes):
        raw = raw.decode("ascii", errors="replace")
    text = raw.strip()
    fits = 0 < len(text) <= TEXT_LIMIT and text.isascii() and text.isprintable()
    return text if fits else None
