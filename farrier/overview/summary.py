"""The overview's last line: hosts, replicas, models. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from farrier.overview.rows import HostRow, ReplicaRow

__all__ = ["summary"]


def summary(rows: Sequence[HostRow]) -> str:
    """*rows* in one line: the drivers that are loaded, and of every model how many are ready."""
    silent = sum(row.error is not None for row in rows)
    replicas = [one for row in rows for one in row.replicas]
    ready = sum(1 for row in rows if row.ready)
    words = [f"{len(rows)} host{'s' * (len(rows) != 1)}: {ready} ready"]
    words += [f"{len(rows) - ready - silent} not ready"] * (len(rows) - ready - silent > 0)
    words += [f"{silent} without an answer"] * (silent > 0)
    parts = [", ".join(words)]
    drivers = sorted({row.driver_version for row in rows if row.driver_version})
    parts += [f"driver {', '.join(drivers)}"] * bool(drivers)
    parts += [f"{model} {_of(replicas, model)} ready" for model in _models(replicas)]
    flying = [one.in_flight for one in replicas if one.in_flight is not None]
    if replicas:
        parts.append(f"{sum(flying)} in flight")
    pending = sum(bool(one.restart_pending) for one in replicas)
    parts += [f"{pending} restart{'s' * (pending != 1)} pending"] * (pending > 0)
    return "; ".join(parts)


def _models(replicas: Sequence[ReplicaRow]) -> list[str]:
    return sorted(Counter(one.model for one in replicas))


def _of(replicas: Sequence[ReplicaRow], model: str) -> str:
    mine = [one for one in replicas if one.model == model]
    return f"{sum(one.ready for one in mine)} of {len(mine)}"
