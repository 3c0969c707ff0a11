"""Engines' own metrics, made fit for the agent's page: labelled, checked, bounded. No I/O here."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Family"]


class Family(NamedTuple):
    """One family of engines' metrics, of all replicas.

    ``name`` is the family's in 0.0.4 (a counter's ends in ``_total``), ``kind`` one of counter
    gauge histogram summary untyped, ``text`` its HELP, unescaped. ``lines`` are samples in text
    format 0.0.4 without timestamps, labelled with replica and model; as they stand they are good
    OpenMetrics samples too.
    """

    name: str
    kind: str
    text: str
    lines: tuple[str, ...]
