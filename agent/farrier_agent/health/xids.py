"""What each XID asks for, and how they are grouped into incidents. Pure.

The classes are the *immediate action* of NVIDIA's catalog
(docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html); an XID that is not listed here, or
only informs, is counted and gives no verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from farrier_agent.gpus import XidEvent

__all__ = [
    "ANNOUNCEMENT",
    "BURST",
    "CLASSES",
    "CLEAN_UP",
    "CRASHES_KEPT",
    "KEPT",
    "Incident",
    "XidClass",
    "absorb",
    "classify",
]

XidClass = Literal["app", "reset", "reboot", "power", "software", "link", "nothing"]

ANNOUNCEMENT = 154
"""The driver announces what it wants done; the action is authoritative."""
CLEAN_UP = 45
"""A context was cleaned up: after another error, or because its program was killed."""

BURST = 180.0
"""Seconds: XIDs of a GPU up to this long after the first one are one incident.

From the first, not until silence: a GPU with one XID a minute has no silence.
"""
KEPT = 14 * 86400.0
"""Seconds for which fatal incidents are remembered, across reboots."""
CRASHES_KEPT = 3600.0
"""Seconds for which those of programs are."""
_MOST = 64
"""Incidents that are remembered for one GPU."""
_SLACK = 5.0
"""Seconds by which the time of one line differs when the kernel log is read again."""

CLASSES: dict[XidClass, frozenset[int]] = {
    "app": frozenset(
        (8, 11, 13, 25, 31, 32, *range(39, 42), 45, 60, *range(68, 73), *range(75, 78), 80)
    )
    | frozenset((*range(82, 87), 88, 89, 94, *range(96, 106), *range(126, 136), 139)),
    "reset": frozenset((46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158)),
    "reboot": frozenset((79, 151)),
    "power": frozenset((54,)),
    "software": frozenset((78,)),
    "link": frozenset((74, *range(144, 151))),
}
"""48, an uncorrectable memory error, is judged with what stands beside it: :func:`classify`."""

_OF = {xid: kind for kind, numbers in CLASSES.items() for xid in numbers}
_DOUBLE_BIT = 48
_CONTAINED = frozenset((63, 94))
"""Beside XID 48: the row was remapped, or the error contained."""


class Incident(msgspec.Struct, frozen=True):
    """A burst of XIDs of one GPU that began ``at``, in the boot ``boot_id``."""

    at: float
    boot_id: str
    xids: tuple[int, ...]


def classify(event: XidEvent, beside: Iterable[XidEvent], *, flagged: bool) -> XidClass:
    """What *event* asks for; *beside* are all of its GPU.

    *flagged*: the driver tells its recovery action as a reading; it decides then what follows a
    double-bit error. A fatal error of an NVLink 5 asks for a reset, one that is not fatal for a
    look at the link.
    """
    if event.xid == _DOUBLE_BIT:
        near = (other for other in beside if abs(other.at - event.at) <= BURST)
        return "nothing" if flagged or any(one.xid in _CONTAINED for one in near) else "reset"
    kind = _OF.get(event.xid, "nothing")
    if kind == "link" and event.xid != 74 and " fatal " in f" {event.text.lower()} ":
        return "reset"
    return kind


def absorb(
    known: Sequence[Incident],
    events: Iterable[XidEvent],
    boot_id: str,
    now: float,
    kept: float = KEPT,
) -> tuple[Incident, ...]:
    """*known* and what *events* of this boot add to them; the same ones add nothing.

    What is older than *kept* seconds at *now* is left out.
    """
    incidents = list(known)
    for event in sorted(events, key=lambda event: event.at):
        for position, incident in enumerate(incidents):
            if incident.boot_id == boot_id and -_SLACK <= event.at - incident.at <= BURST + _SLACK:
                if event.xid not in incident.xids:
                    incidents[position] = msgspec.structs.replace(
                        incident, xids=(*incident.xids, event.xid)
                    )
                break
        else:
            incidents.append(Incident(event.at, boot_id, (event.xid,)))
    recent = (one for one in incidents if one.at >= now - kept)
    return tuple(sorted(recent, key=_at))[-_MOST:]


def _at(incident: Incident) -> float:
    return incident.at
