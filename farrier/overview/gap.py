"""Models that nobody would serve any more if some replicas were drained. Pure.

Whether the others can carry the load is not judged here: a rollout does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from farrier.fleet.places import Place
from farrier.overview.rows import HostRow

__all__ = ["Gap", "gaps"]


@dataclass(frozen=True)
class Gap:
    """A *model* whose last ready replicas are among those that are to be drained.

    ``others`` says of every other replica, or host that did not answer, why it does not count.
    """

    model: str
    last: tuple[str, ...]
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        rest = "; ".join(self.others) or "there is no other replica of it"
        return f"{', '.join(self.last)} would be the end of {self.model}: {rest}"


def gaps(places: Sequence[Place], rows: Sequence[HostRow]) -> tuple[Gap, ...]:
    """What draining *places* would leave without a ready replica; *rows* are of the whole fleet.

    A model that nobody serves already makes no gap: there is nothing to lose.
    """
    meant = {place.target.name: place for place in places}
    ready: dict[str, list[str]] = {}
    left: set[str] = set()
    others: dict[str, list[str]] = {}
    for row in rows:
        for one in row.replicas:
            name = f"{row.host}/{one.replica}"
            if _drained(meant.get(row.host), one.replica):
                if one.ready:
                    ready.setdefault(one.model, []).append(name)
            elif one.ready:
                left.add(one.model)
            else:
                phase = one.phase or "in no known phase"
                others.setdefault(one.model, []).append(f"{name} is {phase}")
    silent = [f"{row.host} did not answer" for row in rows if row.error is not None]
    return tuple(
        Gap(model, tuple(names), (*others.get(model, ()), *silent))
        for model, names in sorted(ready.items())
        if model not in left
    )


def _drained(place: Place | None, replica: str) -> bool:
    if place is None:
        return False
    return place.whole or any(one.replica == replica for one in place.replicas)
