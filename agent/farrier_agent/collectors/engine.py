"""The engines' own metrics, from the pages that they tell their load with anyway.

No engine is asked for this: each replica's looker (:mod:`farrier_agent.serving.looking`) asks its
engine once a tick, with a deadline of its own, and hands the page over. So an engine that hangs
delays nobody, and an engine that tells nothing of its work (``engine="custom"``) has nothing here,
which is no failure.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from farrier_agent.engines.passthrough import Family, Page, Relabeller, merged

__all__ = ["EngineMetrics"]

_NOTHING = Page((), 0)


class _Told:
    """What one replica's engine told last."""

    def __init__(self, replica: str, model: str) -> None:
        self.relabeller = Relabeller(replica, model)
        self.body: bytes | None = None
        self.at = 0.0
        self.page = _NOTHING

    def take(self, body: bytes | None, now: float) -> None:
        self.body, self.at = body, now
        if body is None:
            self.page = _NOTHING


class EngineMetrics:
    """The metrics of the engines of *models* (model by replica).

    A page is dropped when it is *max_age* seconds old. *clock* is monotonic.
    """

    def __init__(
        self,
        models: Mapping[str, str],
        *,
        max_age: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.faulty: dict[str, int] = {}
        """Lines of each replica's last page that were not passed on because they are faulty."""
        self.clashes = 0
        """Families that were not, because another replica's engine means something else by it."""
        self._max_age = max_age
        self._clock = clock
        self._told = {name: _Told(name, model) for name, model in models.items()}

    def told(self, replica: str, page: bytes | None) -> None:
        """The engine of *replica* told *page*; None: it does not run, and has no metrics."""
        if (one := self._told.get(replica)) is not None:
            one.take(page, self._clock())

    async def collect(self, deadline: float) -> tuple[Family, ...]:  # noqa: ARG002 - never waits
        """The families of all replicas that told them lately. Never raises."""
        for one in self._told.values():
            if one.body is not None:
                one.page, one.body = one.relabeller.read(one.body), None
                await asyncio.sleep(0)  # one page at a time: the loop has others to serve
            if self._clock() - one.at > self._max_age:
                one.page = _NOTHING
        self.faulty = {name: one.page.faulty for name, one in self._told.items()}
        families, self.clashes = merged([one.page for one in self._told.values()])
        return families
