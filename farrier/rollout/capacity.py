"""Can the other replicas carry the present load while a batch is drained? Pure.

By model, from what hosts say now: a batch may begin when the replicas of the model on other hosts
that serve have no queue, and the requests in flight of all, spread over those, are no more than
``limit`` each. Where only one host serves a model a drain is a gap in service, to be allowed in
words. Where nobody serves it, nothing can be lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from farrier.rollout.seen import HostSeen, ReplicaSeen

__all__ = ["Room", "can_drain", "room"]


@dataclass(frozen=True)
class Room:
    """What draining would mean for one model.

    ``others`` are the replicas that go on serving (``HOST:REPLICA``), ``load`` the requests in
    flight at all of them now, ``waiting`` those queued at the others. ``why`` it cannot
    be done now, None when it can; ``gap``: it cannot be done now without a gap in service, and with
    ``alone`` at no time, for there is no other replica.
    """

    model: str
    others: tuple[str, ...]
    load: int
    waiting: int
    why: str | None = None
    gap: bool = False
    alone: bool = False


def can_drain(
    drained: Mapping[str, Collection[str]],
    fleet: Iterable[HostSeen | None],
    *,
    limit: int,
    allow_gap: bool = False,
    max_unavailable: int | None = None,
) -> tuple[Room, ...]:
    """The room for each model of which *drained* (replicas by host) takes a serving replica away.

    *fleet* are all hosts as they are now, None where one could not be asked: that one carries
    nothing.
    """
    replicas = [(host.host, one) for host in fleet if host for one in host.replicas]
    models = {
        one.model for host, one in replicas if one.name in drained.get(host, ()) and one.serves
    }
    return tuple(
        room(
            model,
            [(host, one) for host, one in replicas if one.model == model],
            drained,
            limit=limit,
            allow_gap=allow_gap,
            max_unavailable=max_unavailable,
        )
        for model in sorted(models)
    )


def room(
    model: str,
    replicas: Iterable[tuple[str, ReplicaSeen]],
    drained: Mapping[str, Collection[str]],
    *,
    limit: int,
    allow_gap: bool = False,
    max_unavailable: int | None = None,
) -> Room:
    """The room for *model*, whose *replicas* (with their hosts) are all that there are."""
    replicas = list(replicas)
    others = [
        (host, one)
        for host, one in replicas
        if one.serves and one.name not in drained.get(host, ())
    ]
    # in flight counts those that an engine has queued, too; what could not be counted is taken for
    # as much as one replica may carry
    load = sum(
        limit if one.in_flight is None else one.in_flight for _, one in replicas if one.serves
    )
    waiting = sum(one.waiting or 0 for _, one in others)
    names = tuple(f"{host}:{one.name}" for host, one in others)
    found = Room(model, names, load, waiting)
    if not others:
        if allow_gap:
            return found
        why = f"nobody else serves {model}: its clients would get 503 until it is back"
        alone = all(one.name in drained.get(host, ()) for host, one in replicas)
        return Room(model, names, load, waiting, why, gap=True, alone=alone)
    away = len(replicas) - len(others)
    if max_unavailable is not None and away > max_unavailable:
        why = f"{away} replicas of {model} would not be ready, --max-unavailable {max_unavailable}"
        return Room(model, names, load, waiting, why)
    if waiting:
        why = f"{waiting} requests wait at the other replicas of {model}, which are busy as it is"
        return Room(model, names, load, waiting, why)
    each = -(-load // len(others))
    if each > limit:
        why = (
            f"{load} requests for {model} are in flight, {each} for each of the other"
            f" {len(others)}; one is taken to carry {limit} (--max-in-flight)"
        )
        return Room(model, names, load, waiting, why)
    return found
