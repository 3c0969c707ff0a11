"""A classic histogram: as it is shown, and as it grows."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

import msgspec

__all__ = ["Buckets", "Histogram"]


class Histogram(msgspec.Struct, frozen=True):
    """A classic histogram: ``cumulative`` counts for each of ``bounds`` and then for +Inf.

    The last one is the number of all observations; ``sum`` is of their seconds.
    """

    bounds: tuple[float, ...]
    cumulative: tuple[int, ...]
    sum: float


class Buckets:
    """A histogram that grows; *bounds* are the upper ones of its buckets, in seconds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """One more observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def shown(self) -> Histogram:
        """What it is at this moment."""
        return Histogram(self._bounds, tuple(accumulate(self._counts)), round(self._sum, 6))
