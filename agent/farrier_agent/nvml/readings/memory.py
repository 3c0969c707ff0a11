"""Memory, and how busy the GPU is."""

from __future__ import annotations

from typing import Any

from farrier_agent.nvml.probe import Probe

__all__ = ["fast", "slow", "split"]


def fast(probe: Probe) -> dict[str, Any]:
    """Memory and utilisation."""
    use = probe.ask("nvmlDeviceGetUtilizationRates")
    # the second version: the first counts what the driver reserves as used
    sizes = probe.ask("nvmlDeviceGetMemoryInfo", probe.nvml.nvmlMemory_v2)
    return {
        **split(probe, sizes),
        "utilization_ratio": probe.value("utilization_ratio", use.gpu if use else None),
        "memory_busy_ratio": probe.value("memory_busy_ratio", use.memory if use else None),
    }


def slow(probe: Probe) -> dict[str, Any]:
    """Video engines, which engines for language models do not use."""
    encoder = probe.ask("nvmlDeviceGetEncoderUtilization")
    decoder = probe.ask("nvmlDeviceGetDecoderUtilization")
    return {
        "encoder_ratio": probe.value("encoder_ratio", encoder[0] if encoder else None),
        "decoder_ratio": probe.value("decoder_ratio", decoder[0] if decoder else None),
    }


def split(probe: Probe, sizes: Any) -> dict[str, int]:
    """The parts of an ``nvmlMemory_v2_t``; nothing if one is odd or they contradict each other."""
    if sizes is None:
        return {}
    found: dict[str, int] = {}
    for part in ("total", "used", "free", "reserved"):
        value = probe.value(f"memory_{part}_bytes", getattr(sizes, part))
        if value is None:
            return {}
        found[f"memory_{part}_bytes"] = value
    if sizes.used + sizes.free + sizes.reserved > sizes.total:
        probe.odd("memory_used_bytes", sizes.used)
        return {}
    return found
