"""A replica's record as ``/status`` shows it, and as reasons in words. Values in, values out."""

from __future__ import annotations

from farrier_agent import status
from farrier_agent.draining.record import Drain, Now, Phase, Record

__all__ = ["drain", "why_not_ready"]


def drain(one: Drain | None, now: Now) -> status.Drain | None:
    """*one* with times for people, at the moment *now* of the same boot."""
    if one is None:
        return None
    since_boot = now.epoch - now.boot
    return status.Drain(
        asked_by=tuple(asker.by for asker in one.askers),
        reasons=tuple(asker.reason for asker in one.askers),
        policy=one.policy,
        begun_at=one.begun_at,
        deadline_at=since_boot + one.deadline,
        seconds=max(0.0, (now.boot if one.ended is None else one.ended) - one.begun),
        settling=not one.closed,
        over=one.ended is not None,
        in_flight_at_close=one.in_flight_at_close,
        forced=one.forced,
        cut=one.cut,
    )


def why_not_ready(record: Record, *, gate_open: bool | None, warming: str | None) -> str | None:
    """Why a replica of this *record* takes no requests; None when it does.

    *gate_open* is its file, None when it cannot be seen; *warming* is what its warm-up waits for.
    """
    why = _why(record, gate_open=gate_open, warming=warming)
    if gate_open and record.gate == "closed":
        by_hand = f"its gate was opened by hand; to close: farrier-agent drain {record.replica}"
        return f"{by_hand} ({why})"
    return why


def _why(record: Record, *, gate_open: bool | None, warming: str | None) -> str | None:
    name = record.replica
    match record.phase:
        case Phase.READY if gate_open:
            return None
        case Phase.READY if record.gate == "opening":
            return "ready: its gate is being opened"
        case Phase.READY:
            return (
                "gate closed: its gate was closed by hand since the engine started;"
                f" to open: farrier-agent ready {name}"
            )
        case Phase.WARMING:
            return f"warming: {warming or record.reason}"
        case Phase.DRAINED:
            who = record.drain.askers[-1] if record.drain else None
            why, by = (who.reason, who.by) if who else (record.reason, record.by)
            return f"drained: {why} (asked by {by}); next: farrier-agent ready {name}"
        case _:
            return f"{record.phase.value}: {record.reason}"
