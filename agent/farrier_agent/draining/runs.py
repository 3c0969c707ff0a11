"""The part of the state machine about runs of the unit: begun, warmed up, ended, lost."""

from __future__ import annotations

from typing import Any

import msgspec

from farrier_agent.draining.events import UnitSeen, WarmedUp, WarmUpFailed
from farrier_agent.draining.record import Asker, Drain, Now, Phase, Record

__all__ = ["after_reboot", "ended", "enter", "seen", "warm_up_failed", "warmed_up"]

_replace = msgspec.structs.replace

STOP_GRACE = 5.0
"""Seconds for which "active" may be an older answer than the ``ExecStop=`` that has begun."""


def enter(record: Record, phase: Phase, reason: str, by: str, now: Now, **more: Any) -> Record:
    """*record* in *phase* since *now*."""
    return _replace(
        record, phase=phase, reason=reason, by=by, since_at=now.epoch, boot_id=now.boot_id, **more
    )


def seen(record: Record, unit: UnitSeen, now: Now) -> Record:  # noqa: PLR0911 - one a state
    """What the state of the unit means."""
    run = unit.invocation_id
    new_run = run is not None and run != record.invocation_id
    if run != record.invocation_id and unit.read_at < record.run_since:
        return record  # an answer from before the run that is known already
    if record.stop_began is not None and unit.read_at < record.stop_began:
        return record  # from before its ExecStop= began, which cannot begin without an engine
    match unit.active_state, unit.sub_state:
        case (("active" | "reloading" | "refreshing"), _):
            return _active(record, unit, now) if not new_run else _new_run(record, unit, now)
        case "activating", ("auto-restart" | "auto-restart-queued"):
            return ended(record, Phase.FAILED, f"the engine ended ({unit.result})", now)
        case "activating", _:
            if new_run or record.phase in {Phase.STOPPED, Phase.FAILED}:
                before = ended(record, Phase.STOPPED, "the unit is started anew", now)
                return _begin(before, Phase.STARTING, run, unit, now)
            return record
        case "deactivating", "stop":
            return record  # ExecStop= is at work, and says itself how far it is
        case "deactivating", sub_state:
            return ended(record, Phase.STOPPED, f"systemd ends the engine ({sub_state})", now)
        case "failed", _:
            return ended(record, Phase.FAILED, f"the unit failed ({unit.result})", now)
        case "inactive", _:
            return ended(record, Phase.STOPPED, "the unit is not running", now)
        case _:
            return record  # maintenance and what systemd may invent: nothing follows from it


def _active(record: Record, unit: UnitSeen, now: Now) -> Record:
    if record.phase in {Phase.STOPPED, Phase.STARTING}:
        return _begin(record, Phase.WARMING, unit.invocation_id, unit, now)
    if record.stop_began is not None and unit.read_at > record.stop_began + STOP_GRACE:
        # the program of ExecStop= was run by hand: its drain is one like another
        return _replace(record, stop_began=None, stop_cap=None)
    return record


def _new_run(record: Record, unit: UnitSeen, now: Now) -> Record:
    if record.invocation_id is None and record.gate == "open" and not record.held:
        # an agent from before there were records opened it: an upgrade touches no gate
        return enter(
            record,
            Phase.READY,
            "its gate is open, opened by an earlier agent",
            "farrier-agent",
            now,
            invocation_id=unit.invocation_id,
            run_since=unit.read_at,
            engine_runs=True,
        )
    before = ended(record, Phase.STOPPED, "another run of the unit", now)
    return _begin(before, Phase.WARMING, unit.invocation_id, unit, now)


def _begin(record: Record, phase: Phase, run: str | None, unit: UnitSeen, now: Now) -> Record:
    reason = "the unit starts" if phase is Phase.STARTING else "the engine runs"
    return enter(
        record,
        phase,
        reason,
        "systemd",
        now,
        invocation_id=run,
        run_since=unit.read_at,
        engine_runs=phase is Phase.WARMING,
    )


def ended(record: Record, phase: Phase, reason: str, now: Now) -> Record:
    """The run is over. A drain outlives it, except by the stop that it was for.

    A rollout's outlives that too: to restart the unit is what it was asked for, and whether the
    replica may serve again is for the rollout to say. So does then what a person asked for.
    """
    if record.phase is phase and not record.engine_runs and not record.stopping:
        return record
    last, drain = record.last_drain, record.drain
    if record.phase in {Phase.DRAINING, Phase.DRAINED} and drain:
        last = drain
        if record.phase is Phase.DRAINING:
            # the engine went first: what was in flight at the last look is lost
            last = _replace(drain, forced=True, cut=drain.in_flight, ended=now.boot)
    kept = None
    if drain and (askers := _staying(drain, stopping=record.stopping)):
        kept = _replace(
            drain,
            askers=askers,
            closed=True,
            quiet=0,
            looked=None,
            in_flight=None,
            in_flight_at_close=None,
            ended=None,
            forced=False,
            cut=None,
        )
    return enter(
        record,
        phase,
        reason,
        "systemd",
        now,
        gate="closed",
        engine_runs=False,
        drain=kept,
        last_drain=last,
        stop_began=None,
        stop_cap=None,
    )


def _staying(drain: Drain, *, stopping: bool) -> tuple[Asker, ...]:
    """Who wants it drained after the run, too. A verdict and a notice ask again by themselves."""
    if not stopping:
        return drain.askers
    if any(one.source == "rollout" for one in drain.askers):
        return tuple(one for one in drain.askers if one.source in {"rollout", "person"})
    return ()


def after_reboot(record: Record, now: Now) -> Record:
    """The record in a new boot: nothing runs, and its times of the old boot mean nothing."""
    before = ended(record, Phase.STOPPED, "the host was booted", now)
    drain = before.drain and _replace(
        before.drain, begun=now.boot, settle_ends=now.boot, deadline=now.boot
    )
    return enter(
        before,
        Phase.STOPPED,
        "the host was booted",
        "systemd",
        now,
        gate="closed",
        drain=drain,
        invocation_id=None,
        run_since=0.0,
    )


def warmed_up(record: Record, event: WarmedUp, now: Now) -> Record:
    """Warm-up went through: the gate may be opened, unless a drain keeps it closed."""
    if record.phase is not Phase.WARMING or event.invocation_id != record.invocation_id:
        return record
    if record.drain:
        who = record.drain.askers[-1]
        drained = _replace(record.drain, ended=now.boot, closed=True)
        reason = f"warm, and kept closed: {who.reason}"
        return enter(record, Phase.DRAINED, reason, who.by, now, drain=drained, gate="closed")
    return enter(record, Phase.READY, "warm-up went through", "farrier-agent", now, gate="opening")


def warm_up_failed(record: Record, event: WarmUpFailed, now: Now) -> Record:
    """Warm-up gave up: the engine may run on, closed, until it is restarted or tried again."""
    if record.phase is not Phase.WARMING or event.invocation_id != record.invocation_id:
        return record
    reason = f"warm-up failed: {event.reason}"
    return enter(record, Phase.FAILED, reason, "farrier-agent", now, gate="closed")
