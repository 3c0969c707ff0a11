"""Where a collector's last good value waits, with how the collector fares and how old it is."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from farrier_agent.collectors import CollectError
from farrier_agent.status import Collector

__all__ = ["STALE_TICKS", "Slot"]

T = TypeVar("T")
log = logging.getLogger("farrier-agent")

STALE_TICKS = 3
"""A value older than so many ticks is dropped: no data are better than old data."""


class Slot(Generic[T]):
    """One collector's place.

    A failed attempt keeps the last value until it is stale, so that one slow answer makes no gap;
    that the attempt failed is seen at once in :meth:`report`.
    """

    def __init__(self, name: str, tick: float) -> None:
        self.name = name
        self._max_age = STALE_TICKS * tick
        self._value: T | None = None
        self._success = False
        self._duration: float | None = None
        self._good_since_boot: float | None = None
        self._good_at: float | None = None
        self._error: str | None = "has not run yet"

    async def attempt(self, collect: Callable[[], Awaitable[T]]) -> T | None:
        """Run *collect* and keep what it gave; None when it failed."""
        begun = time.monotonic()
        try:
            value = await collect()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # one broken collector must not take the others with it
            if not isinstance(error, CollectError):
                log.exception("collector %s: unexpected error", self.name)
            self._success, self._error = False, str(error) or repr(error)
            self._duration = time.monotonic() - begun
            return None
        self._value, self._success, self._error = value, True, None
        self._good_since_boot, self._good_at = time.monotonic(), time.time()
        self._duration = self._good_since_boot - begun
        return value

    def current(self, now: float) -> T | None:
        """The value, unless it is stale at *now* (``time.monotonic()``)."""
        return self._value if self._fresh(now) else None

    def report(self, now: float) -> Collector:
        """How the collector fares at *now*."""
        return Collector(
            name=self.name,
            success=self._success,
            fresh=self._fresh(now),
            duration_seconds=self._duration,
            last_success_at=self._good_at,
            error=self._error,
        )

    def _fresh(self, now: float) -> bool:
        return self._good_since_boot is not None and now - self._good_since_boot <= self._max_age
