"""From what was observed, and what is remembered, to verdicts. Pure.

A fault is set after enough looks in a row that found it, and over after enough that found all well.
A look that sees nothing does neither: losing sight of a GPU sets no fault and clears none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from farrier_agent.health.memory import Key, Mark, Memory, answer_key
from farrier_agent.health.observed import Observed
from farrier_agent.health.rule import FINE, Found, Look, Rule
from farrier_agent.health.rules import RULES
from farrier_agent.health.steps import typed
from farrier_agent.health.view import View
from farrier_agent.status import Health, Reason, Verdict

__all__ = ["GAP", "WEIGHT", "judge"]

GAP = 60.0
"""Seconds without a look after which looks are no longer in a row."""

WEIGHT = {"healthy": 0, "degraded": 1, "unknown": 2, "unhealthy": 3}
"""The worst reason is the verdict. What is not known may be worse than *degraded*."""

_HEALTHY = Verdict(state="healthy")
_replace = msgspec.structs.replace


def judge(
    observed: Observed,
    memory: Memory,
    rules: Sequence[Rule] = RULES,
    observing: Collection[str] = (),
) -> tuple[Health, Memory]:
    """The verdicts at the moment *observed*, and what is to be remembered for the next one.

    *observing* are the names of *rules* that drain nothing.
    """
    view = View(observed, memory)
    marks = _kept(view, rules)
    answered = memory.answered
    for rule in rules:
        if not (rule.anywhere or observed.accelerator == "cuda"):
            continue
        for gpu, replica, look in _looks(rule, view):
            key = (rule.name, gpu, replica)
            if look is FINE:
                if key in marks and _well(rule, marks, key, view) and rule.known is not None:
                    answered = {**answered, answer_key(rule.name, gpu): observed.at}
            elif isinstance(look, Found):
                marks[key] = _found(rule, marks.get(key), key, look, view)
    remembered = Memory(
        boot_id=observed.boot_id or memory.boot_id,
        marks=marks,
        known=view.known,
        answered=answered,
        renewed=view.renewed,
        incidents=view.incidents,
        crashes=view.crashes,
        links=view.links,
        trails=view.trails,
        read=view.read if observed.gpus is not None else memory.read,
    )
    return _verdicts(view, marks, rules, observing), remembered


def _kept(view: View, rules: Sequence[Rule]) -> dict[Key, Mark]:
    """The marks that still mean something: of rules and replicas that there are."""
    marks = view.before.marks
    if not marks:
        return {}
    cuda = view.now.accelerator == "cuda"
    names = {rule.name for rule in rules if rule.anywhere or cuda}
    replicas = {None, *(replica.name for replica in view.now.replicas)}
    kept = {
        key: mark for key, mark in marks.items() if mark.rule in names and mark.replica in replicas
    }
    if view.rebooted or view.anew:
        for key, mark in kept.items():
            if not mark.confirmed and view.confirmed(mark):
                kept[key] = _replace(mark, confirmed=True)
    return kept


def _looks(rule: Rule, view: View) -> Iterator[tuple[str | None, str | None, Look]]:
    """What *rule* sees: of which GPU or replica, and what."""
    if rule.gpu is not None:
        for gpu in view.gpus:
            yield gpu.uuid, None, rule.gpu(gpu, view)
    if rule.known is not None:
        for uuid in view.known:
            yield uuid, None, rule.known(uuid, view)
        yield None, None, rule.known(None, view)
    if rule.replica is not None:
        for replica in view.now.replicas:
            yield None, replica.name, rule.replica(replica, view)
    if rule.host is not None:
        yield None, None, rule.host(view)


def _found(rule: Rule, mark: Mark | None, key: Key, found: Found, view: View) -> Mark:
    now = view.now
    if mark is None:
        mark = Mark(
            rule=rule.name,
            gpu=key[1],
            replica=key[2],
            text=found.text,
            since_at=now.at if found.at is None else found.at,
        )
    streak, lasted = (0, 0.0) if mark.holds else _longer(mark, now.monotonic)
    anew = streak == 1 and found.at is None
    holds = mark.holds or found.now or (streak >= rule.looks and lasted >= rule.seconds)
    if holds:
        streak, lasted = 0, 0.0  # from now on they are looks that find all well
    return _replace(
        mark,
        holds=holds,
        text=found.text,
        step=found.step,
        by=found.by,
        since_at=now.at if anew else mark.since_at,
        confirmed=False,
        streak=streak,
        lasted=lasted,
        looked=now.monotonic,
    )


def _well(rule: Rule, marks: dict[Key, Mark], key: Key, view: View) -> bool:
    """All is well there: bring the fault *key* nearer its end. True when that ended it."""
    mark = marks[key]
    if not mark.holds:
        del marks[key]
        return False
    if rule.latched and (
        rule.confirmed_by == "ack" or not mark.confirmed or not view.sound(mark.gpu)
    ):
        if mark.streak:
            marks[key] = _replace(mark, streak=0, lasted=0.0)
        return False
    streak, lasted = _longer(mark, view.now.monotonic)
    if streak >= rule.clear_looks and lasted >= rule.clear_seconds:
        del marks[key]
        return True
    marks[key] = _replace(mark, streak=streak, lasted=lasted, looked=view.now.monotonic)
    return False


def _longer(mark: Mark, now: float) -> tuple[int, float]:
    """The streak of *mark* with one look more, and how many seconds it lasts."""
    passed = now - mark.looked
    if mark.streak == 0 or not 0 <= passed <= GAP:
        return 1, 0.0
    return mark.streak + 1, mark.lasted + passed


def _verdicts(
    view: View, marks: Mapping[Key, Mark], rules: Sequence[Rule], observing: Collection[str]
) -> Health:
    order = {rule.name: position for position, rule in enumerate(rules)}
    by_name = {rule.name: rule for rule in rules}
    holding = [mark for mark in marks.values() if mark.holds]
    holding.sort(key=lambda mark: _place(mark, by_name[mark.rule], order, view))
    reasons = [_reason(mark, by_name[mark.rule], view, observing) for mark in holding]
    of_gpu: dict[str, list[Reason]] = {}
    for reason in reasons:
        if reason.gpu is not None:
            of_gpu.setdefault(reason.gpu, []).append(reason)
    uuids = {**view.known, **dict.fromkeys(of_gpu)} if view.now.accelerator == "cuda" else {}
    return Health(
        host=_verdict(reasons),
        gpus={uuid: _verdict(of_gpu.get(uuid, ())) for uuid in uuids},
        replicas={
            replica.name: _verdict(_concerning(replica.name, replica.gpus, reasons, view))
            for replica in view.now.replicas
        },
    )


def _concerning(
    name: str, indices: Sequence[int], reasons: Sequence[Reason], view: View
) -> list[Reason]:
    if not reasons:
        return []
    uuids = {uuid for index in indices if (uuid := view.uuid_of(index)) is not None}
    return [reason for reason in reasons if reason.replica == name or reason.gpu in uuids]


def _verdict(reasons: Sequence[Reason]) -> Verdict:
    """*reasons* are in order, the worst first."""
    if not reasons:
        return _HEALTHY
    return Verdict(state=reasons[0].state, reasons=tuple(reasons))


def _place(
    mark: Mark, rule: Rule, order: Mapping[str, int], view: View
) -> tuple[int, int, int, str, str]:
    known = view.known.get(mark.gpu) if mark.gpu else None
    return (
        -WEIGHT[rule.state],
        order[rule.name],
        known.index if known else -1,
        mark.gpu or "",
        mark.replica or "",
    )


def _reason(mark: Mark, rule: Rule, view: View, observing: Collection[str]) -> Reason:
    step = mark.step or rule.step
    users = view.users.get(mark.gpu, ()) if mark.gpu else ()
    if mark.replica is not None:
        users = tuple(one for one in view.now.replicas if one.name == mark.replica)
    return Reason(
        rule=rule.name,
        state=rule.state,
        text=mark.text,
        next=step.next,
        command=typed(step, gpu=mark.gpu, replicas=users, units=view.now.units),
        since_at=mark.since_at,
        gpu=mark.gpu,
        replica=mark.replica,
        latched=rule.latched,
        clears=rule.clears,
        acts=rule.acts and rule.name not in observing,
    )
