"""NVML's numbers in base units; None for those that no GPU can have.

Drivers are known to answer 345 degrees, 808334905 percent or 2^63 bytes (NVIDIA/dcgm-exporter#312,
#418, NVIDIA/DCGM#199): such a value is absent, not shown.
"""

from __future__ import annotations

__all__ = ["celsius", "hertz", "ratio", "watts"]


def ratio(percent: int) -> float | None:
    """0 to 100 percent as 0 to 1."""
    return percent / 100 if 0 <= percent <= 100 else None


def celsius(degrees: int) -> float | None:
    """Degrees Celsius; the shutdown temperature of any GPU is far below 150."""
    return float(degrees) if -50 <= degrees <= 150 else None


def watts(milliwatts: int) -> float | None:
    """Milliwatts as watts; no board draws 10 kW."""
    return milliwatts / 1000 if 0 <= milliwatts <= 10_000_000 else None


def hertz(megahertz: int) -> int | None:
    """Megahertz as hertz, below 100 GHz (HBM and GDDR clocks are counted in the tens)."""
    return megahertz * 1_000_000 if 0 <= megahertz < 100_000 else None


def memory(total: int, used: int, free: int, reserved: int) -> dict[str, int]:
    """The fields of a GPU's memory in bytes; empty when they contradict one another."""
    if not 0 < total < 2**50 or min(used, free, reserved) < 0 or used + free + reserved > total:
        return {}
    return {
        "memory_total_bytes": total,
        "memory_used_bytes": used,
        "memory_free_bytes": free,
        "memory_reserved_bytes": reserved,
    }
