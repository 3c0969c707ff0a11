"""NVLinks."""

from __future__ import annotations

from typing import Any

from farrier_agent.gpus import NvLink
from farrier_agent.nvml import fields
from farrier_agent.nvml.fields import ALL_LINKS, Batch
from farrier_agent.nvml.probe import Probe

__all__ = ["STATES", "fast", "slow", "static"]

STATES = {0: False, 1: True, 2: True}
"""Whether a link is up in a state (``NVML_NVLINK_STATE_*``: inactive, active, asleep).

One that is active and has its traffic disabled (3) is neither up nor down.
"""

_SLOW_ERRORS = ("replay_errors_total", "effective_errors_total", "symbol_errors_total")


def static(probe: Probe) -> dict[str, Any]:
    """Nothing to show: how many links there are."""
    found = Batch(probe.nvml, [fields.LINKS]).read(probe)
    probe.kept["links"] = probe.value("nvlinks", found.get((fields.LINKS.name, 0))) or 0
    return {}


def slow(probe: Probe) -> dict[str, Any]:
    """Nothing to show: the less urgent errors and, of NVLink 5, bytes, for :func:`fast`."""
    count = probe.kept["links"]
    probe.kept["link_errors"] = [
        {name: _number(probe, f"nvlink_{name}", link) for name in _SLOW_ERRORS}
        for link in range(count)
    ]
    probe.kept["link_bytes"] = {
        f"nvlink_{way}_bytes_total": _sum(probe, f"nvlink_link_{way}_bytes", count)
        for way in ("transmit", "receive")
    }
    return {}


def fast(probe: Probe) -> dict[str, Any]:
    """Every link, and the bytes of all together."""
    links = []
    for link in range(probe.kept["links"]):
        state = _number(probe, "nvlink_state", link)
        recoveries = probe.field("nvlink_recovery_errors_total", link)
        if recoveries is None:
            recoveries = probe.field("nvlink_recovery_events", link)
        errors = {
            "recovery_errors_total": probe.value("nvlink_recovery_errors_total", recoveries),
            "crc_errors_total": _number(probe, "nvlink_crc_errors_total", link),
            **probe.kept["link_errors"][link],
        }
        up = None if state is None else STATES.get(state)
        if state is not None or any(value is not None for value in errors.values()):
            links.append(NvLink(link=link, up=up, **errors))
    sent: dict[str, Any] = dict(probe.kept["link_bytes"])
    for name in sent:
        if (name, ALL_LINKS) in probe.batch:
            sent[name] = _number(probe, name, ALL_LINKS)
    return {"nvlinks": tuple(links), **sent}


def _number(probe: Probe, name: str, scope: int) -> int | None:
    number: int | None = probe.value(name, probe.field(name, scope))
    return number


def _sum(probe: Probe, name: str, count: int) -> int | None:
    parts = [_number(probe, name, link) for link in range(count)]
    numbers = [part for part in parts if part is not None]
    return sum(numbers) if numbers and len(numbers) == len(parts) else None
