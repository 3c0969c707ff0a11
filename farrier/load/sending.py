"""One request as it goes out, whatever the protocol: where to, what, how fast; and its limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

__all__ = ["Sending", "UnreachedError"]

DROPS = 16
"""Pieces that a slow body is sent in."""


class UnreachedError(Exception):
    """There is no connection, and so nobody got the request; the message says why."""


@dataclass(frozen=True)
class Sending:
    """A request. ``seconds`` is how long its body takes; ``chunked``: without a Content-Length.

    The client reads ``slow_bytes`` of the answer a second (0: as fast as they come), and goes away
    once ``leave_after`` events of a stream are there (0: it stays).
    """

    path: str
    authority: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    method: str = "POST"
    seconds: float = 0.0
    chunked: bool = False
    slow_bytes: int = 0
    leave_after: int = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, piece by piece, in its time."""
        if not self.body:
            yield b""
            return
        count = DROPS if self.seconds else 1
        size = -(-len(self.body) // count)
        for start in range(0, len(self.body), size):
            if start:
                await asyncio.sleep(self.seconds / (count - 1))
            yield self.body[start : start + size]
