"""A fingerprint, and what became of it, as a person reads them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from farrier_agent.fingerprint.made import Fingerprint, Speed
from farrier_agent.wording import clock

if TYPE_CHECKING:
    from farrier_agent.control.protocol import Fingerprinted

__all__ = ["fingerprint_lines"]


def fingerprint_lines(said: Fingerprinted) -> Iterator[str]:
    """The answer to ``fingerprint``, line by line."""
    shown = said.recorded if said.action == "show" else said.now
    if shown is not None:
        yield from _lines(shown)
    for why in said.missing:
        yield f"not measured: {why}"
    for one in said.differences:
        yield f"{one.kind}: {one}"
    match said.action:
        case "record":
            yield "recorded"
        case "check" if said.recorded is not None and not said.differences and not said.missing:
            yield f"as it was recorded at {clock(said.recorded.at, 0.0)}"


def _lines(one: Fingerprint) -> Iterator[str]:
    driver = f", driver {one.driver_version}" if one.driver_version else ""
    cuda = f", CUDA {one.cuda_version}" if one.cuda_version else ""
    yield f"{one.host}: kernel {one.kernel or '?'}{driver}{cuda}"
    if one.gpus is None:
        yield "GPUs: cannot be read"
    for gpu in one.gpus or ():
        parts = [gpu.name or "?", gpu.uuid]
        if gpu.serial:
            parts.append(f"serial {gpu.serial}")
        if gpu.vbios_version:
            parts.append(f"VBIOS {gpu.vbios_version}")
        if gpu.pcie_width:
            generation = f" gen {gpu.pcie_max_generation}" if gpu.pcie_max_generation else ""
            parts.append(f"PCIe x{gpu.pcie_width}{generation}")
        if gpu.nvlinks:
            parts.append(f"{gpu.nvlinks_up} of {gpu.nvlinks} NVLinks up")
        if gpu.power_limit_watts:
            parts.append(f"{gpu.power_limit_watts:g} W")
        yield f"GPU {gpu.index}: {', '.join(parts)}"
    for speed in one.speeds:
        yield _speed(speed)


def _speed(one: Speed) -> str:
    beside = f", beside {one.others} requests of others" if one.others else ""
    return (
        f"{one.replica}: {one.tokens_per_second:.1f} tokens/s for one client, first token after"
        f" {one.first_token_seconds:.3f} s ({one.requests} streams in {one.seconds:.0f} s{beside})"
    )
