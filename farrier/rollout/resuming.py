"""Where to go on with a host, from its record in the ledger and what it says now. Pure.

The host is right where the two differ. A step that was done is not done again, and one that may
have been done is never repeated blindly: a replica whose unit runs anew since the plan was
restarted, whoever was told of it; a host with another boot_id was rebooted. Everything else (a
converge, a drain, a check, a soak) may be done twice and is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from farrier.rollout.ledger import HostRecord, ReplicaRecord
from farrier.rollout.plan import DRIVERS, LETS_GO, RESTARTS, Kind
from farrier.rollout.seen import HostSeen
from farrier.rollout.steps import Step

__all__ = ["GoOn", "TakeBack", "acted", "go_on", "renewed", "still_to_restart", "take_back"]


@dataclass(frozen=True)
class GoOn:
    """The step to go on with; None: nothing is left to do. ``stop``: why it must not go on.

    ``anew``: what was done here came to nothing, so the present runs of its replicas are to end.
    """

    step: Step | None
    stop: str | None = None
    anew: bool = False


@dataclass(frozen=True)
class TakeBack:
    """What to do about a host when a rollout is given up.

    ``ready``: open what is drained; ``settle``: take the mark away. ``leave``: why it stays closed.
    """

    ready: bool = False
    settle: bool = False
    leave: str | None = None


def still_to_restart(record: HostRecord, seen: HostSeen) -> tuple[str, ...]:
    """The replicas whose unit is in the run that is to end.

    That is also one which systemd began by itself while the unit was being changed: it may have
    begun with what the unit said before.
    """
    names = []
    for one in record.replicas:
        now = seen.replica(one.name)
        if now is None:
            continue
        if one.failing:
            due = not now.warm
        else:
            due = (one.invocation_before or None) == (now.invocation or None)
        if due or now.older:
            names.append(one.name)
    return tuple(names)


def renewed(
    record: HostRecord, seen: HostSeen, fresh: Iterable[ReplicaRecord]
) -> list[ReplicaRecord]:
    """Records of the replicas that are to be restarted, or only to be opened, from here on.

    *fresh* are the replicas that may be meant, as they are now. Restarted is what runs with another
    configuration than its unit's, and of what *record* has what does not come up: in the run that
    it is in now. What became warm meanwhile needs no restart. How it was before all this stays.
    """
    before = {one.name: one for one in record.replicas}
    found = []
    for one in fresh:
        now, old = seen.replica(one.name), before.get(one.name)
        if now is None:
            continue
        if old is not None:
            for field in ("served", "goes_back", "configuration_before", "verdict_before"):
                setattr(one, field, getattr(old, field))
        if now.pending or (old is not None and now.failing):
            one.failing = now.failing
            found.append(one)
        elif old is not None and now.drained_by_rollout:
            # closed, and warm or on its way: nobody has to end that run
            one.invocation_before = None
            found.append(one)
    return found


def acted(kind: Kind, record: HostRecord, seen: HostSeen) -> bool | None:
    """Whether what the drain is for has happened; None where nobody can know."""
    if kind == "reboot":
        if seen.boot_id is None or record.boot_before is None:
            return None
        return seen.boot_id != record.boot_before
    if kind == "run":
        step = record.last(Step.ACT)
        if step is None:
            return False
        return True if step.outcome == "done" else None
    return not still_to_restart(record, seen)


def go_on(kind: Kind, record: HostRecord, seen: HostSeen, *, run_again: bool = False) -> GoOn:
    """The step with which to go on.

    *run_again*: a command may be run twice on a host where its end is not known.
    """
    if record.over or record.did(Step.HOOK_AFTER):
        return GoOn(None)
    if begin := _not_begun(kind, record):
        return GoOn(begin)
    if record.did(Step.SETTLE) or kind in LETS_GO:
        over = record.did(Step.SETTLE)
        return GoOn(Step.HOOK_AFTER if over else _letting_go(kind, record, seen))
    if kind in RESTARTS and _came_to_nothing(record):
        return GoOn(_ANEW[kind], anew=True)
    happened = acted(kind, record, seen)
    if happened is None and not run_again:
        unknown = "whether the command ran to its end" if kind == "run" else "in which boot it is"
        return GoOn(None, f"it is not known {unknown}")
    return GoOn(_behind(kind, record) if happened else Step.DRAIN)


def _not_begun(kind: Kind, record: HostRecord) -> Step | None:
    """The step to begin with, where what comes before the drain was not done."""
    if kind == "driver-back" and not record.present:
        return Step.DRAIN
    if {one.step for one in record.present} <= {Step.HOOK_BEFORE}:
        # where there is no hook nothing is recorded of it
        return Step.HOOK_BEFORE
    change = {
        "converge": Step.CONVERGE,
        "rollback": Step.PUT_BACK,
        "driver": Step.PLAN,
    }.get(kind)
    return change if change and not record.did(change) else None


def _letting_go(kind: Kind, record: HostRecord, seen: HostSeen) -> Step:
    """Where to go on with a host that lets go of its GPUs, and takes them up again.

    To let go, to install and to take up may be done twice. A reboot is done once: the boot says so.
    """
    if record.last(Step.LET_GO) is None:
        return Step.DRAIN
    if not record.did(Step.INSTALL if kind in DRIVERS else Step.ACT):
        # without its mark the agent may have taken back what was drained
        return Step.LET_GO if seen.acting else Step.DRAIN
    if kind in DRIVERS and record.reboots_for is not None and not record.did(Step.BACK):
        known = None not in (record.boot_before, seen.boot_id)
        return Step.BACK if known and seen.boot_id != record.boot_before else Step.REBOOT
    if not record.did(Step.CHECK):
        return Step.TAKE_UP
    return _behind(kind, record)


_ANEW: Mapping[Kind, Step] = {
    "restart": Step.DRAIN,
    "converge": Step.CONVERGE,
    "rollback": Step.PUT_BACK,
}


def _came_to_nothing(record: HostRecord) -> bool:
    """It is known that its replicas did not come up, or not well.

    A process that lost its lease, or was refused, knows nothing of that.
    """
    last = record.present[-1]
    return (
        record.state == "failed"
        and record.code != 3
        and last.outcome == "failed"
        and last.step in {Step.ACT, Step.WARM, Step.CHECK}
    )


def _behind(kind: Kind, record: HostRecord) -> Step:
    """The step after what the drain was for has happened."""
    if kind == "reboot" and not record.did(Step.BACK):
        return Step.BACK
    if not record.did(Step.CHECK):
        return Step.WARM
    # opened is asked for again, whatever was done: it serves if it says so now
    if record.did(Step.SOAK):
        return Step.SETTLE
    return Step.SOAK if record.did(Step.HOLD) else Step.READY


def take_back(  # noqa: PLR0911 - one a state
    kind: Kind, record: HostRecord, seen: HostSeen
) -> TakeBack:
    """What to do about a host when the rollout is given up now.

    Opened is what the rollout drained, if it was not touched, or came back well. What a step may
    have left half done stays closed.
    """
    if record.state in {"waiting", "done", "put back", "taken back"} and seen.acting is None:
        return TakeBack()
    drained = any(one.drained_by_rollout for one in seen.replicas)
    if record.state == "failed":
        return TakeBack(leave=record.failure or "it failed")
    if seen.acting is None:
        return TakeBack(ready=drained)
    if kind in LETS_GO and not record.did(Step.CHECK):
        again = f"; farrier rollout driver --limit {record.host} --takeover goes on"
        what = f"what was done to it ({seen.acting}) did not come to its end"
        return TakeBack(leave=what + (again if kind in DRIVERS else ""))
    if kind == "run" and not record.did(Step.ACT):
        return TakeBack(leave="it is not known how far the command came")
    if seen.acting == "reboot" and acted(kind, record, seen) is not True:
        return TakeBack(leave="it is about to reboot")
    bad = [
        f"{one.name} is {now.phase if now else 'unknown'}"
        for one in record.replicas
        if (now := seen.replica(one.name)) is None or now.up is not True or now.phase == "failed"
    ]
    if bad:
        return TakeBack(leave=", ".join(bad))
    return TakeBack(ready=True, settle=True)
