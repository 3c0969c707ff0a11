"""The state machine of a replica: a record and an event in, the next record and what to do out.

    stopped -> starting -> warming -> ready -> draining -> drained -> stopped,  and failed

Only warm-up makes a replica *ready*, and a gate is opened for one run of the unit: for that in
which warm-up went through. A drain that was asked for ends with the orderly stop of the unit or
with ``ready``, never by a crash: an engine that comes back by itself is warmed up and stays closed.

The record is to be saved before the actions are carried out. After a crash in between
:class:`.Resumed` yields them again, so every action has to be harmless when it is done twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from farrier_agent.draining import drains, events, runs
from farrier_agent.draining.record import Asker, Now, Phase, Record

__all__ = ["Action", "Transition", "transition"]

_replace = msgspec.structs.replace


class Action(Enum):
    """What is to be done after the record was saved, in this order.

    OPEN_GATE comes again with every event until :class:`.GateOpened`. An engine may end, and its
    unit close the gate, just before the file is made: so the unit is read again after that, and
    the opening taken back when it is in another run (:mod:`.keeping`).
    """

    STOP_WARM_UP = "stop warm-up"
    STOP_COUNTING = "stop counting"
    CLOSE_GATE = "close gate"
    OPEN_GATE = "open gate"
    START_COUNTING = "start counting"
    START_WARM_UP = "start warm-up"


@dataclass(frozen=True)
class Transition:
    """What an event made of a record.

    ``log`` is the line for the journal, None when there is no news; ``level`` is its name in
    :mod:`logging`. ``refused`` says to whoever asked why nothing was done.
    """

    record: Record
    actions: tuple[Action, ...] = ()
    log: str | None = None
    level: str = "INFO"
    refused: str | None = None


def transition(record: Record, event: events.Event, now: Now) -> Transition:
    """What *event* makes of *record* at the moment *now*."""
    old = record
    if record.boot_id != now.boot_id:
        record = runs.after_reboot(record, now)
    refused = _refusal(record, event)
    if refused:
        by = event.asker.by if isinstance(event, events.DrainAsked | events.ReadyAsked) else "?"
        text = f"replica {record.replica}: refused to {by}: {refused}"
        return Transition(record, _actions(old, record), text, "WARNING", refused)
    new = _next(record, event, now)
    actions = _actions(old, new)
    if isinstance(event, events.Resumed):
        due = {*actions, *_all_actions(new)}
        actions = tuple(one for one in Action if one in due)
    elif isinstance(event, events.StopBegan) or (
        isinstance(event, events.DrainAsked) and event.gate_open
    ):
        # whatever the record says: a gate that somebody opened by hand must not outlive this
        actions = tuple(one for one in Action if one in {*actions, Action.CLOSE_GATE})
        if (new.drain and not new.drain.closed) or new.gate != "closed":
            actions = tuple(one for one in actions if one is not Action.CLOSE_GATE)
    return Transition(new, actions, _news(old, new), _level(new))


def _next(record: Record, event: events.Event, now: Now) -> Record:  # noqa: PLR0911 - one a kind
    match event:
        case events.UnitSeen():
            return runs.seen(record, event, now)
        case events.WarmedUp():
            return runs.warmed_up(record, event, now)
        case events.WarmUpFailed():
            return runs.warm_up_failed(record, event, now)
        case events.GateOpened(run):
            ours = record.gate == "opening" and run == record.invocation_id
            return _replace(record, gate="open") if ours else record
        case events.DrainAsked():
            return drains.asked(record, event, now)
        case events.ReadyAsked(asker):
            others = drains.others(record, event)
            return drains.for_others(record, others) if others else _ready(record, asker, now)
        case events.StopBegan():
            return drains.stop_began(record, event, now)
        case events.Looked(in_flight):
            return drains.looked(record, in_flight, now)
        case events.GaveUp(why):
            return drains.gave_up(record, why, now)
        case events.Ticked():
            return drains.passed(record, now)
        case events.Resumed():
            return drains.resumed(record)


def _refusal(record: Record, event: events.Event) -> str | None:
    if isinstance(event, events.ReadyAsked):
        if record.stopping:
            return (
                "systemd is stopping the unit, which nothing can take back: it drains to its end; "
                "next: systemctl start, once it has stopped"
            )
        idle = record.phase in {Phase.STOPPED, Phase.FAILED} and not record.engine_runs
        if idle and not record.held:
            return f"its engine does not run ({record.reason}); next: start its unit"
    if isinstance(event, events.DrainAsked) and event.policy == "abort" and record.stopping:
        return "systemd is stopping the unit: only --on-deadline extend and force are left"
    return None


def _ready(record: Record, asker: Asker, now: Now) -> Record:
    drain = record.drain
    match record.phase:
        case Phase.READY:
            return _replace(record, gate="opening")
        case Phase.DRAINING if drain and not drain.closed:
            # the gate is still open
            return runs.enter(record, Phase.READY, asker.reason, asker.by, now, drain=None)
        case Phase.DRAINING:
            return drains.taken_back(record, asker.reason, asker.by, now)
        case Phase.DRAINED | Phase.FAILED if record.engine_runs:
            # it may have been closed for a reason: before it serves again it shows that it can
            return runs.enter(
                record, Phase.WARMING, asker.reason, asker.by, now, drain=None, gate="closed"
            )
        case _:
            return _replace(record, drain=None)


def _actions(old: Record, new: Record) -> tuple[Action, ...]:
    """What the step from *old* to *new* asks for."""
    due = set()
    warmed = (new.phase is Phase.WARMING, new.invocation_id)
    if warmed != (old.phase is Phase.WARMING, old.invocation_id):
        due |= {Action.STOP_WARM_UP} if old.phase is Phase.WARMING else set()
        due |= {Action.START_WARM_UP} if new.phase is Phase.WARMING else set()
    counts = new.counting and not old.counting
    if new.counting != old.counting:
        due.add(Action.START_COUNTING if counts else Action.STOP_COUNTING)
    # also one that somebody opened by hand while it was drained
    if new.gate == "closed" and (old.gate != "closed" or counts):
        due.add(Action.CLOSE_GATE)
    if new.gate == "opening":
        due.add(Action.OPEN_GATE)
    return tuple(one for one in Action if one in due)


def _all_actions(record: Record) -> tuple[Action, ...]:
    """What whoever takes over at *record* has to see to. An open gate is left as it is."""
    due = {
        Action.CLOSE_GATE: record.gate == "closed",
        Action.OPEN_GATE: record.gate == "opening",
        Action.START_COUNTING: record.counting,
        Action.START_WARM_UP: record.phase is Phase.WARMING,
    }
    return tuple(one for one in Action if due.get(one))


def _news(old: Record, new: Record) -> str | None:
    mine, yours = _position(old), _position(new)
    drain, before = new.drain, old.drain
    if mine != yours:
        what = f"{mine} -> {yours}"
    elif old.stopping != new.stopping:
        what = f"{yours}, systemd is stopping it" if new.stopping else f"{yours}, not being stopped"
    elif drain and before and drain.extensions != before.extensions:
        waits = "?" if drain.in_flight is None else drain.in_flight
        return f"replica {new.replica}: drain extended, {waits} requests in flight"
    elif drain and before and len(drain.askers) > len(before.askers):
        who = drain.askers[-1]
        return f"replica {new.replica}: drain also wanted by {who.by}: {who.reason}"
    elif drain and before and len(drain.askers) < len(before.askers):
        who = drain.askers[-1]
        gone = next(one for one in before.askers if one not in drain.askers)
        what = f"{gone.by} does not want it drained any more; it stays so for {who.by}"
        return f"replica {new.replica}: {what}: {who.reason}"
    elif (drain is None) != (before is None):
        what = f"{yours}, to {'stay closed' if drain else 'be served'} once it is warm"
    else:
        return None
    return f"replica {new.replica}: {what}: {new.reason} (asked by {new.by})"


def _position(record: Record) -> str:
    if record.phase is Phase.DRAINING and record.drain:
        return f"draining ({'closed' if record.drain.closed else 'settling'})"
    return record.phase.value


def _level(record: Record) -> str:
    forced = record.drain is not None and record.drain.forced
    return "WARNING" if record.phase is Phase.FAILED or forced else "INFO"
