"""Several replicas of one model on one host: the ways that its ``/v1/…`` may take. No I/O here.

The gates are files that nginx looks for at each request, and its groups of servers are fixed when
it reads its configuration. So there is a group for every set of gates that may be open together,
and a request goes to the group of those that are: a replica whose gate is closed is in none that is
asked, and whatever takes the request is one hop and one line of the log, as for a single replica.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.spec import Model

__all__ = ["GROUP", "MOST", "Way", "ways"]

MOST = 8
"""Replicas of one model behind one ``/v1/…``: 255 sets of open gates."""
GROUP = "farrier_any"
"""How the groups' names begin; the numbers of their replicas follow, from 1."""


@dataclass(frozen=True)
class Way:
    """Where a request may go while the gates of exactly *models* are open."""

    group: str
    models: tuple[Model, ...]


def ways(models: Sequence[Model]) -> tuple[Way, ...]:
    """The ways of a host's ``/v1/…``; none where it serves several models, or one by one replica.

    Of more than :data:`MOST` replicas each has its own path only; so it is where not all of them
    serve the same adapters, since nginx does not read what a request asks for.
    """
    served = {(model.name, frozenset(model.adapters)) for model in models}
    if len(served) != 1 or not 2 <= len(models) <= MOST:
        return ()
    numbered = list(enumerate(models, start=1))
    return tuple(
        Way(
            GROUP + "".join(f"_{number}" for number, _ in chosen),
            tuple(model for _, model in chosen),
        )
        for size in range(1, len(numbered) + 1)
        for chosen in combinations(numbered, size)
    )
