"""The connections to all engines of a host: the kernel is asked once for all of them.

Only for looks that nothing depends on to the second. Whoever waits for the end of requests asks the
kernel himself (:mod:`farrier_agent.draining.inflight`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence

from farrier_agent import movement
from farrier_agent.movement import Bytes

__all__ = ["Connections"]


class Connections:
    """The connections to the engines at *ports*, for the threads of all replicas. May block.

    *tick* is seconds between two looks of each; *clock* is monotonic. An answer of the kernel
    serves whoever asks shortly after: :attr:`glance` seconds, :attr:`step` for who compares it with
    the last one, which never gets the same twice.
    """

    def __init__(
        self,
        ports: Collection[int],
        tick: float,
        *,
        read: Callable[..., Sequence[Bytes]] = movement.read,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.glance = min(0.25, tick / 4)
        self.step = min(1.0, tick / 2)
        self._ports = tuple(ports)
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: Sequence[Bytes] = ()
        self._asked: float | None = None

    def seen(self, max_age: float) -> Sequence[Bytes]:
        """All of them, as the kernel told when it was asked *max_age* seconds ago or later.

        Raises :class:`.MovementError`.
        """
        oldest = self._clock() - max_age
        with self._lock:
            if self._asked is None or self._asked < oldest:
                asked, self._asked = self._clock(), None
                self._seen = self._read(*self._ports)
                self._asked = asked
            return self._seen
