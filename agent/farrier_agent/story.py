"""What a person has to know of one replica besides its row: drains, health, its unit. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from farrier_agent.status import Drain, Replica
from farrier_agent.wording import clock, counted, duration

__all__ = ["story"]

_QUIET = {"ready", None}
_OF_A_DRAIN = {"draining", "drained"}
_ON_DEADLINE = {
    "extend": "then it waits on (extend)",
    "abort": "then the drain is taken back (abort)",
    "force": "then what still runs is cut (force)",
}


def story(one: Replica, now: float) -> Iterator[str]:
    """Lines below the row of *one* at *now*, seconds since the epoch; none when all is well."""
    unit = one.unit_state
    if unit and (unit.active_state, unit.sub_state) != ("active", "running"):
        yield f"{unit.name} is {unit.active_state} ({unit.sub_state})"
    if one.restarts:
        yield f"systemd restarted it {_times(one.restarts)} after failures"
    if one.phase not in _QUIET and not (one.drain and one.phase in _OF_A_DRAIN):
        yield _phase(one, now)
    if one.drain:
        yield from _drain(one.drain, one, now)
    if one.strangers:
        yield (
            f"{counted(one.strangers, 'connection')} to port {one.port} past nginx, not waited for;"
            f" whose: ss -tnp 'sport = :{one.port}'"
        )
    if one.health in {"suspect", "wedged"}:
        yield f"health: {one.health}: it has requests, and makes no progress"
    if one.health_restarts:
        yield f"restarted {_times(one.health_restarts)} within the last hour for being wedged"
    if one.last_drain and not (one.drain and one.drain.over):
        yield f"last drain: {_end(one.last_drain)}"


def _phase(one: Replica, now: float) -> str:
    why = f": {one.reason}" if one.reason else ""
    who = f" (asked by {one.asked_by})" if one.asked_by else ""
    return f"{one.phase} {_since(one, now)}{why}{who}"


def _since(one: Replica, now: float) -> str:
    if one.since_at is None:
        return "since ?"
    return f"since {clock(one.since_at, now)} ({duration(now - one.since_at)})"


def _drain(drain: Drain, one: Replica, now: float) -> Iterator[str]:
    for who, why in zip(drain.asked_by, drain.reasons, strict=False):
        yield f"drain asked by {who}: {why or 'no reason given'}"
    if one.phase not in _OF_A_DRAIN:
        yield f"held: it stays closed, also when it is warm; to take that back: {_ready(one)}"
    elif drain.over and _stopping(one):
        yield f"drained after {_end(drain)}; systemd is stopping the unit"
    elif drain.over:
        yield f"drained after {_end(drain)}; {_since(one, now)}"
        yield f"it stays closed; to open it: {_ready(one)}"
    else:
        yield f"{_waits(drain, one)}; since {duration(drain.seconds)}"
        left = drain.deadline_at - now
        when = f"in {duration(left)}" if left > 0 else "passed"
        yield f"deadline {clock(drain.deadline_at, now)}, {when}, {_ON_DEADLINE[drain.policy]}"


def _waits(drain: Drain, one: Replica) -> str:
    if drain.settling:
        return "settling: requests are still accepted while gateways hear of it"
    if one.in_flight is None:
        return "waits for the requests in flight, which cannot be counted"
    first = drain.in_flight_at_close
    of = "" if first is None else f", {first} when the gate closed"
    return f"waits for {counted(one.in_flight, 'request')} in flight{of}"


def _end(drain: Drain) -> str:
    if not drain.forced:
        cut = "nothing cut"
    elif drain.cut is None:
        cut = "given up, an unknown number of requests CUT"
    else:
        cut = f"given up, {counted(drain.cut, 'request')} CUT"
    return f"{duration(drain.seconds)}, {cut}"


def _stopping(one: Replica) -> bool:
    return one.unit_state is not None and one.unit_state.active_state == "deactivating"


def _ready(one: Replica) -> str:
    return f"farrier-agent ready {one.name}"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
