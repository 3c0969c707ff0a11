"""What became of a replica, as the agent answers it. Values in, values out."""

from __future__ import annotations

from farrier_agent.control.protocol import Result
from farrier_agent.draining.record import Phase, Record
from farrier_agent.draining.states import Transition
from farrier_agent.serving.life import boottime

__all__ = ["held_by_others", "refused", "result"]


def refused(name: str, step: Transition) -> Result:
    """Nothing was done of what *step* was to be."""
    return Result(
        replica=name,
        state=step.record.phase.value,
        code=3,
        changed=False,
        text=step.refused or "",
    )


def held_by_others(record: Record) -> str:
    """Why a rollout cannot have it served: who else wants it closed."""
    who = "; ".join(f"{one.reason} (asked by {one.by})" for one in record.others)
    return (
        f"it stays closed, for that is wanted by others: {who};"
        f" next: farrier-agent ready {record.replica}"
    )


def result(
    record: Record,
    begun: float,
    *,
    in_flight: int | None = None,
    code: int = 0,
    text: str = "",
    changed: bool = True,
    wait: bool = True,
    cut: int | None = None,
) -> Result:
    """How the replica of *record* is, *begun* being when it was asked (CLOCK_BOOTTIME)."""
    drain = record.drain
    lost = cut if cut is not None else (drain.cut or 0) if drain and drain.forced else 0
    return Result(
        replica=record.replica,
        state=record.phase.value,
        code=3 if code == 3 else 1 if code else 0,
        changed=changed,
        text=text,
        in_flight=in_flight,
        cut=lost,
        seconds=max(0.0, boottime() - begun) if wait else None,
    )


def is_drained(record: Record) -> bool:
    """Nothing of it is in flight any more, or there is no engine that could have something."""
    return record.phase is Phase.DRAINED or not record.engine_runs
