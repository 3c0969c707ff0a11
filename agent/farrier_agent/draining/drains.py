"""The part of the state machine about drains: asked for, settling, counted, ended, given up."""

from __future__ import annotations

import msgspec

from farrier_agent.draining.events import DrainAsked, ReadyAsked, StopBegan
from farrier_agent.draining.record import Asker, Drain, Now, Phase, Record
from farrier_agent.draining.runs import ended, enter

__all__ = [
    "APART",
    "EXTENSION",
    "LOOKS",
    "asked",
    "for_others",
    "gave_up",
    "looked",
    "others",
    "passed",
    "resumed",
    "stop_began",
    "taken_back",
]

_replace = msgspec.structs.replace

LOOKS = 3
"""So many looks in a row have to see nothing in flight."""

APART = 1.0
"""Seconds between two looks that count. Between two requests of one client nothing is in flight."""

EXTENSION = 60.0
"""Seconds that a deadline moves at a time under the policy *extend*."""

_SLACK = 0.05  # a sleep of APART may end a little early on another clock
_STRENGTH = {"abort": 0, "extend": 1, "force": 2}
_MAX_ASKERS = 16


def asked(record: Record, event: DrainAsked, now: Now) -> Record:
    """A drain is asked for. A second one joins the first."""
    fresh = _fresh(event.asker, event, now)
    match record.phase:
        case Phase.STOPPED if event.asker.source != "rollout":
            return record  # nothing runs, nothing to keep: it is as drained as it can be
        case Phase.READY:
            return _draining(record, fresh, now)
        case Phase.WARMING | Phase.FAILED if record.engine_runs:
            return _draining_closed(record, fresh, now)
        case Phase.DRAINED if record.drain and event.gate_open and record.engine_runs:
            # somebody opened the gate by hand meanwhile: what came in is waited for, too
            again = _replace(
                _joined(record.drain, fresh), ended=None, forced=False, cut=None, quiet=0
            )
            return _counts_again(record, again, event.asker.by, now)
        case Phase.DRAINING | Phase.DRAINED if record.drain:
            return passed(_replace(record, drain=_joined(record.drain, fresh)), now)
        case _:
            # no engine yet, or again: it is kept for when there is one. A rollout starts it, and
            # says when it may serve
            drain = _joined(record.drain, fresh) if record.drain else _replace(fresh, closed=True)
            return _replace(record, drain=drain)


def stop_began(record: Record, event: StopBegan, now: Now) -> Record:
    """systemd stops the unit: whatever state it is in, nothing may be in flight when it ends."""
    by = Asker("systemd", "systemd", "the unit is being stopped")
    fresh = _fresh(by, event, now)
    if record.invocation_id not in {None, event.invocation_id} and event.invocation_id:
        # of a run that ended unseen: what is recorded of its stop says nothing about this one
        record = ended(record, Phase.STOPPED, "another run of the unit", now)
    cap = record.stop_cap if record.stop_cap is not None else now.boot + event.cap
    other = event.invocation_id not in {None, record.invocation_id}
    stopping = _replace(
        record,
        # it runs only where there is a main process, whatever the record missed
        engine_runs=True,
        run_since=now.boot if other else record.run_since,
        stop_began=now.boot if record.stop_began is None else record.stop_began,
        stop_cap=cap,
        boot_id=now.boot_id,
        invocation_id=event.invocation_id or record.invocation_id,
    )
    match record.phase:
        case Phase.READY:
            return _draining(stopping, fresh, now)
        case Phase.DRAINING | Phase.DRAINED if record.drain:
            return passed(_replace(stopping, drain=_joined(record.drain, fresh)), now)
        case _:
            return _draining_closed(stopping, fresh, now)


def looked(record: Record, in_flight: int | None, now: Now) -> Record:
    """The requests in flight were counted. What could not be counted is not nothing."""
    drain = record.drain
    if drain is None or not drain.closed:
        return passed(record, now)
    if record.phase is Phase.DRAINED:
        return _looked_again(record, drain, in_flight, now)
    if record.phase is not Phase.DRAINING:
        return record
    first = drain.in_flight_at_close
    quiet = drain.quiet
    if in_flight != 0:
        quiet = 0
    elif quiet == 0 or drain.looked is None or now.boot - drain.looked >= APART - _SLACK:
        quiet += 1
    else:
        return passed(record, now)  # too soon after the last one to say anything new
    drain = _replace(
        drain,
        quiet=quiet,
        looked=now.boot,
        in_flight=in_flight,
        in_flight_at_close=in_flight if first is None else first,
    )
    if quiet < LOOKS:
        return passed(_replace(record, drain=drain), now)
    drain = _replace(drain, ended=now.boot)
    seconds = now.boot - drain.begun
    return enter(
        record,
        Phase.DRAINED,
        f"nothing in flight any more, {seconds:.1f} s after the drain began",
        record.by,
        now,
        drain=drain,
    )


def _looked_again(record: Record, drain: Drain, in_flight: int | None, now: Now) -> Record:
    if drain.forced and in_flight is not None:
        return _replace(record, drain=_replace(drain, in_flight=in_flight, cut=in_flight))
    if not drain.forced and in_flight and record.stopping:
        # somebody opened the gate by hand while it was drained
        drain = _replace(drain, ended=None, quiet=0, looked=now.boot, in_flight=in_flight)
        return _counts_again(record, drain, "systemd", now)
    return record


def _counts_again(record: Record, drain: Drain, by: str, now: Now) -> Record:
    reason = "its gate was opened although it was drained"
    return passed(enter(record, Phase.DRAINING, reason, by, now, drain=drain), now)


def passed(record: Record, now: Now) -> Record:
    """Time went by: the settling, a deadline or the cap of a stop may be over."""
    drain = record.drain
    if record.phase is not Phase.DRAINING or drain is None:
        return record
    if record.stop_cap is not None and now.boot >= record.stop_cap:
        return gave_up(record, "systemd waits no longer", now)
    if now.boot >= drain.deadline:
        if drain.policy == "force":
            return gave_up(record, "its deadline passed", now)
        if drain.policy == "abort" and not record.stopping:
            asker = drain.askers[-1].by
            return taken_back(record, "the drain's deadline passed: taken back", asker, now)
        late = now.boot - drain.deadline
        steps = 1 + int(late // EXTENSION)
        drain = _replace(
            drain,
            deadline=drain.deadline + steps * EXTENSION,
            extensions=drain.extensions + steps,
        )
        record = _replace(record, drain=drain)
    if not drain.closed and now.boot >= drain.settle_ends:
        record = _replace(record, drain=_replace(drain, closed=True), gate="closed")
    return record


def resumed(record: Record) -> Record:
    """Somebody takes over: what a dead one saw shortly before the gap is not counted on."""
    if not record.counting or record.drain is None:
        return record
    return _replace(record, drain=_replace(record.drain, quiet=0, looked=None))


def others(record: Record, event: ReadyAsked) -> tuple[Asker, ...]:
    """Who still wants it drained after *event*."""
    asker = event.asker
    if record.drain is None or not (event.own or asker.source == "rollout"):
        return ()
    rest = (one for one in record.drain.askers if one.source != "systemd")
    if event.own:
        return tuple(one for one in rest if one != asker)
    return tuple(
        one for one in rest if one.source != "rollout" or asker.rollout not in {None, one.rollout}
    )


def for_others(record: Record, askers: tuple[Asker, ...]) -> Record:
    """It stays drained, for *askers* alone."""
    return _replace(record, drain=record.drain and _replace(record.drain, askers=askers))


def taken_back(record: Record, reason: str, by: str, now: Now) -> Record:
    """Ready again, in the run that warm-up went through in; the gate is to be opened again.

    Where it was asked for before the engine was warm, it is warmed up.
    """
    if record.drain and not record.drain.warm:
        return enter(record, Phase.WARMING, reason, by, now, drain=None, gate="closed")
    gate = "opening" if record.drain is None or record.drain.closed else record.gate
    return enter(record, Phase.READY, reason, by, now, drain=None, gate=gate)


def gave_up(record: Record, why: str, now: Now) -> Record:
    """Drained as far as anybody waits for it; what is still in flight is counted as cut."""
    drain = record.drain
    if record.phase is not Phase.DRAINING or drain is None:
        return record
    drain = _replace(drain, closed=True, forced=True, cut=drain.in_flight, ended=now.boot)
    count = "an unknown number of" if drain.in_flight is None else drain.in_flight
    reason = f"{why}: {count} requests still in flight"
    return enter(
        record, Phase.DRAINED, reason, drain.askers[-1].by, now, drain=drain, gate="closed"
    )


def _draining(record: Record, drain: Drain, now: Now) -> Record:
    who, gate = drain.askers[-1], record.gate
    if gate == "opening":
        gate, drain = "closed", _replace(drain, closed=True)
    draining = enter(record, Phase.DRAINING, who.reason, who.by, now, drain=drain, gate=gate)
    return passed(draining, now)


def _draining_closed(record: Record, drain: Drain, now: Now) -> Record:
    """Draining of one whose gate is closed, but not for as long as that nothing is in flight."""
    drain = _replace(drain, closed=True)
    drain = _replace(_joined(record.drain, drain) if record.drain else drain, warm=False)
    who = drain.askers[-1]
    return enter(record, Phase.DRAINING, who.reason, who.by, now, drain=drain, gate="closed")


def _fresh(asker: Asker, event: DrainAsked | StopBegan, now: Now) -> Drain:
    return Drain(
        askers=(asker,),
        policy=event.policy,
        begun_at=now.epoch,
        begun=now.boot,
        settle_ends=now.boot + event.settle,
        deadline=now.boot + event.seconds,
        in_flight=event.in_flight,
    )


def _joined(old: Drain, new: Drain) -> Drain:
    """Two drains are one: it settles as soon as either wants, the stronger policy holds.

    One who forces after a minute is not held up by one who would wait for ten; one who would take
    the drain back at its deadline does not overrule one who would not.
    """
    askers, asker = old.askers, new.askers[0]
    if asker.source == "rollout":
        # it says the same in other words, and must not crowd others out
        askers = tuple(
            one for one in askers if (one.source, one.rollout) != ("rollout", asker.rollout)
        )
    if asker not in askers:
        askers = (*askers, asker)[-_MAX_ASKERS:]
    policy, deadline = old.policy, old.deadline
    if _STRENGTH[new.policy] > _STRENGTH[old.policy]:
        policy, deadline = new.policy, new.deadline
    elif new.policy == old.policy:
        later = new.policy == "abort"
        deadline = (max if later else min)(old.deadline, new.deadline)
    return _replace(
        old,
        askers=askers,
        policy=policy,
        deadline=deadline,
        settle_ends=min(old.settle_ends, new.settle_ends),
        in_flight=old.in_flight if new.in_flight is None else new.in_flight,
        closed=old.closed or new.closed,
    )
