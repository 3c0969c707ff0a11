"""Is a host as well as before? Pure.

After it was acted upon and before it serves again: its verdict, its GPUs, its engines' runs and
configurations. While it soaks: its errors and the time until its answers begin, against before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from farrier.rollout.counts import Counts, FirstByte
from farrier.rollout.ledger import HostRecord
from farrier.rollout.plan import RESTARTS, Kind
from farrier.rollout.resuming import still_to_restart
from farrier.rollout.seen import HostSeen
from farrier.rollout.tolerance import ENOUGH, ERRORS, MORE_ERRORS, SLOWER, SLOWER_SECONDS

__all__ = ["ENOUGH", "Soak", "not_warm", "problems", "soaked", "worse"]


def not_warm(record: HostRecord, seen: HostSeen) -> Iterator[str]:
    """Which replicas have not answered in their new run yet, and why."""
    for one in record.replicas:
        now = seen.replica(one.name)
        if now is None:
            yield f"{one.name}: the agent does not know it"
        elif now.up is not True and now.phase in {"drained", "ready"}:
            yield f"{one.name}: its engine did not answer when the agent looked the last time"
        elif now.phase not in {"drained", "ready"}:
            yield f"{one.name}: {now.phase or 'unknown'}: {now.reason or 'no reason told'}"


def problems(kind: Kind, record: HostRecord, seen: HostSeen) -> Iterator[str]:
    """Why the host must not serve again; nothing when it is as well as before."""
    yield from not_warm(record, seen)
    if kind in RESTARTS:
        for name in still_to_restart(record, seen):
            if (now := seen.replica(name)) and now.pending:
                continue  # told below
            yield f"{name}: it still is in the run from before, it was not restarted"
    for one in record.replicas:
        now = seen.replica(one.name)
        if now is None:
            continue
        if kind != "run" and now.pending is True:
            yield f"{one.name}: it still runs an older configuration (restart pending)"
        if worse(one.verdict_before, now.verdict):
            yield f"{one.name}: its verdict is {now.verdict}, it was {one.verdict_before}"
    if kind == "reboot" and seen.boot_id == record.boot_before:
        yield "the host was not rebooted: its boot_id is the same"
    if worse(record.verdict_before, seen.verdict):
        why = "; ".join(seen.reasons) or "no reason told"
        yield f"the host's verdict is {seen.verdict}, it was {record.verdict_before}: {why}"
    if record.gpus_before is not None:
        lost = sorted(set(record.gpus_before) - set(seen.gpus or ()))
        if lost:
            yield f"GPUs that answered before and do not now: {', '.join(lost)}"


def worse(before: str | None, now: str | None) -> bool:
    """*unhealthy* only where it was not before: less is told, and changes as GPUs warm up."""
    return now == "unhealthy" and before != "unhealthy"


@dataclass(frozen=True)
class Soak:
    """What a soak showed: ``line`` for people, ``bad`` why it is not as before."""

    line: str
    bad: str | None = None


def soaked(before: Counts | None, after: Counts | None) -> Soak:
    """The comparison of what a host counted *before* it was touched and *after*."""
    if after is None or before is None:
        return Soak("its metrics could not be read: nothing compared")
    was, now = _answers(before), _answers(after)
    line = f"{_percent(now)} errors (before {_percent(was)})"
    if now[1] and now[1] / max(1.0, now[0]) > was[1] / max(1.0, was[0]) + MORE_ERRORS:
        bad = (
            f"{now[1]:.0f} of {now[0]:.0f} answers were errors, before {was[1]:.0f} of {was[0]:.0f}"
        )
        return Soak(line, bad)
    slow = None
    times_was, times_now = _times(before), _times(after)
    if min(times_was.count, times_now.count) < ENOUGH:
        return Soak(f"{line}; too few answers to compare their times")
    for share, name in ((0.5, "median"), (0.95, "95 %")):
        old, new = times_was.quantile(share), times_now.quantile(share)
        line += f"; first byte {name} {_seconds(new)} (before {_seconds(old)})"
        if old is not None and (new is None or new > max(old * SLOWER, old + SLOWER_SECONDS)):
            slow = slow or f"the {name} of the times to the first byte is {_seconds(new)},"
            slow += f" before {_seconds(old)}" if slow.endswith(",") else ""
    return Soak(line, slow)


def _answers(counts: Counts) -> tuple[float, float]:
    """How many requests an engine was asked, and how many of the answers were errors."""
    codes = [
        item
        for statuses in counts.statuses.values()
        for item in statuses.items()
        if item[0].startswith("2") or item[0] in ERRORS
    ]
    return sum(n for _, n in codes), sum(n for code, n in codes if code in ERRORS)


def _times(counts: Counts) -> FirstByte:
    whole = FirstByte()
    for one in counts.first_byte.values():
        for bound, value in one.buckets.items():
            whole.buckets[bound] = whole.buckets.get(bound, 0.0) + value
    return whole


def _percent(answers: tuple[float, float]) -> str:
    return f"{100 * answers[1] / answers[0]:.1f} % of {answers[0]:.0f}" if answers[0] else "no"


def _seconds(value: float | None) -> str:
    return "beyond all bounds" if value is None else f"{value:.3f} s"
