"""Evidence about a replica, kept before a restart destroys it."""

from __future__ import annotations

from farrier_agent.evidence.bundle import Bounds, EvidenceError, Gathered, Item, gather, write
from farrier_agent.evidence.keeping import Subject, keep

__all__ = [
    "Bounds",
    "EvidenceError",
    "Gathered",
    "Item",
    "Subject",
    "gather",
    "keep",
    "write",
]
