"""Which replicas are drained for their health, and which are taken back. Pure.

A replica is drained for a reason that acts, once for each: whoever makes it *ready* again while
that reason holds is not contradicted (:func:`overruled`). It is taken back when nothing that acts
holds any more, nothing is unknown, and both have been so for a while, which doubles with every time
within the hour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from farrier_agent.status import Health, Reason, Replica, Verdict

__all__ = [
    "CALM",
    "Book",
    "Drain",
    "Held",
    "TakeBack",
    "begun",
    "counting_of",
    "decide",
    "held_back",
    "may_drain",
    "overruled",
    "taken_back",
]

CALM = 30.0
"""Seconds without a reason before a replica is taken back, the first time within an hour."""
_HOUR = 3600.0
_SERVING = frozenset(("starting", "warming", "ready"))
_CLOSED = frozenset(("draining", "drained"))
_replace = msgspec.structs.replace


class Held(msgspec.Struct, frozen=True):
    """A drain for health that was begun. ``calm_at``: since when no reason for it holds."""

    calm_at: float | None = None


class Book(msgspec.Struct, frozen=True):
    """What was decided, by replica: ``drained`` for their health; ``overruled``, the reasons that
    a person did not let count; ``backs``, when they were taken back. Seconds since the epoch."""

    drained: dict[str, Held] = {}
    overruled: dict[str, tuple[str, ...]] = {}
    backs: dict[str, tuple[float, ...]] = {}


class Drain(NamedTuple):
    """Drain ``replica``; ``why`` is for whoever asks."""

    replica: str
    why: str


class TakeBack(NamedTuple):
    """Make ``replica`` ready again: what it was drained for is over."""

    replica: str
    why: str = "what it was drained for is over"


def decide(
    health: Health, replicas: Sequence[Replica], book: Book, *, at: float, by: str
) -> tuple[tuple[Drain | TakeBack, ...], Book]:
    """What to do about *replicas* at *at*, seconds since the epoch, given *health* and *book*.

    *by* is the name under which drains for health are asked for: one that others want too is not
    taken back. A drain stays in the answer until :func:`begun` says that it was begun.
    """
    intents: list[Drain | TakeBack] = []
    drained, ignored = dict(book.drained), dict(book.overruled)
    for replica in replicas:
        name = replica.name
        verdict = health.replicas.get(name)
        if verdict is None or replica.phase is None:
            continue  # its record was not read yet: what it is drained for is not over by that
        if name not in drained and _is_ours(replica, by):
            # this file of ours is behind its record, or lost; or its engine came back by itself
            drained[name] = Held()
        acting = counting_of(verdict)
        keys = {_key(reason) for reason in acting}
        if name in ignored:
            ignored[name] = tuple(key for key in ignored[name] if key in keys)
            if not ignored[name]:
                del ignored[name]
        counting = [one for one in acting if _key(one) not in ignored.get(name, ())]
        if counting:
            if name in drained:
                drained[name] = Held()
            if replica.phase in _SERVING:
                intents.append(Drain(name, "; ".join(_words(one) for one in counting)))
        elif name in drained:
            held = _calmer(drained[name], verdict, at)
            drained[name] = held
            if replica.phase not in _CLOSED:
                del drained[name]  # it was stopped, or made ready by somebody
            elif _is_calm(held, _pause(book, name, at), at) and _is_ours(replica, by):
                intents.append(TakeBack(name))
    new = Book(drained, ignored, book.backs)
    return tuple(intents), book if new == book else new


def _is_calm(held: Held, seconds: float, at: float) -> bool:
    return held.calm_at is not None and at - held.calm_at >= seconds


def _is_ours(replica: Replica, by: str) -> bool:
    """*replica* is drained because *by* asked for it, and nobody else did."""
    drain = replica.drain if replica.phase in _CLOSED else None
    return drain is not None and all(one == by for one in drain.asked_by)


def begun(book: Book, replica: str) -> Book:
    """*book* after the drain of *replica* was begun."""
    return _replace(book, drained={**book.drained, replica: Held()})


def taken_back(book: Book, replica: str, at: float) -> Book:
    """*book* after *replica* was taken back at *at*."""
    drained = {name: held for name, held in book.drained.items() if name != replica}
    recent = (*(one for one in book.backs.get(replica, ()) if 0 <= at - one < _HOUR), at)
    return _replace(book, drained=drained, backs={**book.backs, replica: recent})


def overruled(book: Book, replica: str, health: Health) -> Book:
    """*book* after a person made *replica* ready: the reasons that *health* has now drain it no
    more, until they are over."""
    verdict = health.replicas.get(replica)
    keys = tuple(_key(reason) for reason in counting_of(verdict)) if verdict else ()
    drained = {name: held for name, held in book.drained.items() if name != replica}
    ignored = {name: one for name, one in book.overruled.items() if name != replica}
    return _replace(
        book, drained=drained, overruled={**ignored, replica: keys} if keys else ignored
    )


def may_drain(answers: Mapping[str, bool | None], still_answers: bool | None) -> tuple[bool, str]:
    """Whether a replica may be drained on the agent's own judgement, and why, or why not.

    *answers* are of all others that serve its model, on this host and elsewhere: whether they do
    and will go on, None where there was no answer. One that is itself about to drain answers no:
    two hosts with the same fault would each rely on the other. A replica that *still_answers*
    (None: not known) stays open when nobody else would serve: a fault that all hosts see, or
    believe to see, must not take the model away.
    """
    ready = [who for who, answer in answers.items() if answer]
    if ready:
        return True, f"{ready[0]} serves its model"
    if still_answers is False:
        return True, "it does not answer anyway"
    if not answers:
        return False, "it still answers, and nobody else is known to serve its model: it stays open"
    told = ", ".join(
        f"{who} {'does not answer' if answer is None else 'is not ready'}"
        for who, answer in answers.items()
    )
    return False, f"it still answers, and nobody else serves its model ({told}): it stays open"


def held_back(health: Health, replica: str, why: str) -> Health:
    """*health* that says of *replica* why the drain that it calls for was not begun."""
    verdict = health.replicas.get(replica)
    if verdict is None:
        return health
    acting = counting_of(verdict)
    told = {_key(one): _replace(one, held_back=f"{replica}: {why}") for one in acting}

    def with_it(one: Verdict) -> Verdict:
        reasons = tuple(told.get(_key(reason), reason) for reason in one.reasons)
        return one if reasons == one.reasons else _replace(one, reasons=reasons)

    return Health(
        host=with_it(health.host),
        gpus=health.gpus,
        replicas={**health.replicas, replica: with_it(verdict)},
    )


def counting_of(verdict: Verdict) -> list[Reason]:
    """The reasons of *verdict* for which a replica is drained."""
    return [one for one in verdict.reasons if one.acts and one.state == "unhealthy"]


def _key(reason: Reason) -> str:
    """A fault from its beginning to its end: when it comes again it is another one."""
    return f"{reason.rule} {reason.gpu or reason.replica or ''} {reason.since_at:.3f}"


def _words(reason: Reason) -> str:
    return f"{reason.rule}: {reason.text}"


def _calmer(held: Held, verdict: Verdict, at: float) -> Held:
    if any(one.state == "unknown" for one in verdict.reasons):
        return held if held.calm_at is None else Held()
    if held.calm_at is None or held.calm_at > at:  # or the clock was set back
        return Held(at)
    return held


def _pause(book: Book, replica: str, at: float) -> float:
    recent = sum(1 for one in book.backs.get(replica, ()) if 0 <= at - one < _HOUR)
    return float(min(CALM * 2**recent, _HOUR))
