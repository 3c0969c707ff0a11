"""What a host's agent counts about requests, read from its ``/metrics``. Pure.

Counters begin again at 0 when the agent is restarted: then all that they show is new.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

import msgspec

__all__ = ["QUEUES", "Counts", "FirstByte", "Requests", "added", "in_between", "parse", "requests"]

QUEUES = frozenset(
    {
        "vllm:num_requests_waiting",
        "sglang:num_queue_reqs",
        "llamacpp:requests_deferred",
        "transformers:requests_waiting",
    }
)
"""Gauges of engines: requests that were accepted and are not worked on yet."""

_LINE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\} ([^ ]+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


class Requests(msgspec.Struct, kw_only=True):
    """What hosts' nginx answered within a time.

    ``by_status`` counts by HTTP status; ``incomplete`` are answers that did not come to their end:
    the client left, or the engine broke off, which is ``broken``.
    """

    by_status: dict[str, int] = {}
    incomplete: int = 0
    broken: int = 0


@dataclass
class FirstByte:
    """How long answers took until they began: cumulative counts by upper bound, in seconds.

    Bounds are as the page writes them, so that a ledger can keep them.
    """

    buckets: dict[str, float] = field(default_factory=dict)

    @property
    def count(self) -> float:
        """Answers."""
        return max(self.buckets.values(), default=0.0)

    def quantile(self, share: float) -> float | None:
        """The time within which *share* of the answers began, within its bucket by its place.

        None without answers, or beyond the last bound.
        """
        wanted = self.count * share
        below = low = 0.0
        for bound, count in sorted((float(le), count) for le, count in self.buckets.items()):
            if count >= wanted and count > below:
                if bound == float("inf"):
                    return None
                return low + (bound - low) * (wanted - below) / (count - below)
            below, low = count, bound
        return None


@dataclass
class Counts:
    """By replica: requests by status, answers that their clients ``left`` or that were ``broken``
    off by the engine, times; ``waiting`` is of now."""

    statuses: dict[str, dict[str, float]] = field(default_factory=dict)
    left: dict[str, float] = field(default_factory=dict)
    broken: dict[str, float] = field(default_factory=dict)
    first_byte: dict[str, FirstByte] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)


def parse(text: str) -> Counts:
    """The counts on a page of metrics; lines that are none of them are passed over."""
    counts = Counts()
    for line in text.splitlines():
        if line.startswith(("llm_requests_total{", "llm_incomplete", "llm_time_to")) or (
            line.split("{", 1)[0] in QUEUES
        ):
            _take(counts, line)
    return counts


def _take(counts: Counts, line: str) -> None:
    match = _LINE.match(line)
    if match is None:
        return
    name, labels, number = match[1], dict(_LABEL.findall(match[2])), match[3]
    replica = labels.get("replica")
    try:
        value = float(number)
    except ValueError:
        return
    if replica is None or not isfinite(value):
        return
    match name:
        case "llm_requests_total":
            counts.statuses.setdefault(replica, {})[labels.get("code", "")] = value
        case "llm_incomplete_responses_total":
            by = counts.broken if labels.get("by") == "engine" else counts.left
            by[replica] = value
        case "llm_time_to_first_byte_seconds_bucket":
            bounds = counts.first_byte.setdefault(replica, FirstByte()).buckets
            bounds[labels.get("le", "+Inf")] = value
        case _ if name in QUEUES:
            # an engine may show one for each of its processes or LoRAs
            counts.waiting[replica] = counts.waiting.get(replica, 0) + int(value)


def in_between(before: Counts, after: Counts) -> Counts:
    """What was counted between two looks at the same host."""
    return Counts(
        statuses={
            replica: _less(codes, before.statuses.get(replica, {}))
            for replica, codes in after.statuses.items()
        },
        left=_less(after.left, before.left),
        broken=_less(after.broken, before.broken),
        first_byte={
            replica: FirstByte(
                _less(it.buckets, before.first_byte.get(replica, FirstByte()).buckets)
            )
            for replica, it in after.first_byte.items()
        },
        waiting=after.waiting,
    )


def _less(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    if any(after.get(key, 0.0) < value for key, value in before.items()):
        before = {}  # a new agent: all of them began again
    return {key: value - before.get(key, 0.0) for key, value in after.items()}


def added(one: Requests, other: Requests) -> Requests:
    """Both together."""
    codes = sorted({*one.by_status, *other.by_status})
    return Requests(
        by_status={
            code: one.by_status.get(code, 0) + other.by_status.get(code, 0) for code in codes
        },
        incomplete=one.incomplete + other.incomplete,
        broken=one.broken + other.broken,
    )


def requests(counts: Counts) -> Requests:
    """*counts* as the ledger has them, of all replicas."""
    by_status: dict[str, int] = {}
    for codes in counts.statuses.values():
        for code, value in codes.items():
            by_status[code] = by_status.get(code, 0) + round(value)
    return Requests(
        by_status={code: count for code, count in sorted(by_status.items()) if count},
        incomplete=round(sum(counts.left.values()) + sum(counts.broken.values())),
        broken=round(sum(counts.broken.values())),
    )
