"""The families about XIDs, the driver's numbers for what went wrong on a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from farrier_agent.gpus import Xid
from farrier_agent.metrics.family import Family, Sample, family

__all__ = ["FAMILIES", "samples"]

ERRORS = family(
    "farrier_gpu_xid_errors_total",
    "uuid xid",
    "XIDs since the agent first saw the host, across its restarts; 79 stands also for a GPU that "
    "fell off the bus without a number. uuid is empty where it is not known which GPU it was, and "
    "for errors of an NVSwitch (SXids, from 10000 on).",
    "xid",
)
LAST = family(
    "farrier_gpu_xid_last_timestamp_seconds",
    "uuid xid",
    "When the XID was last seen, in seconds since the epoch.",
    "xid",
)

FAMILIES: tuple[Family, ...] = (ERRORS, LAST)


def samples(xids: Sequence[Xid]) -> Iterator[tuple[Family, list[Sample]]]:
    """What there is of *xids*. GPUs that nobody can name any more are one: their counts add up."""
    counts: dict[tuple[str, ...], float] = {}
    last: dict[tuple[str, ...], float] = {}
    for one in xids:
        key = (one.uuid, str(one.xid))
        counts[key] = counts.get(key, 0) + one.count
        last[key] = max(last.get(key, one.last_at), one.last_at)
    yield ERRORS, list(counts.items())
    yield LAST, list(last.items())
