"""One request as it goes out, whatever the protocol: where to, what, how fast; and its limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from farrier.load.answer import Answer

__all__ = ["LEFT", "TICK", "Connection", "Sending", "UnreachedError", "UntouchedError", "ended"]

DROPS = 16
"""Pieces that a slow body is sent in."""
TICK = 0.1
"""Seconds between two looks of a slow reader."""
LEFT = "its client went away"
"""Why an answer is broken whose client vanished."""


class UntouchedError(Exception):
    """The server said that it did nothing of the request, or it was never sent."""


class Connection(Protocol):
    """What carries requests. ``served`` is how many were sent on it before."""

    served: int

    async def usable(self) -> bool:
        """Whether it may carry another request, as far as can be seen from here."""

    async def ask(self, sending: Sending, answer: Answer, *, keep: bool) -> None:
        """Send one request and return when its *answer* ended, in whatever way."""

    def give_up(self, answer: Answer, why: str) -> None:
        """The client waits no longer for *answer*: it is broken."""

    def close(self) -> None:
        """Let go of it."""


def ended(error: Exception | None, answer: Answer | None) -> str:
    """How a connection ended, in words."""
    how = "the connection was closed" if error is None else f"the connection broke: {error}"
    return how if answer and answer.first_byte else f"{how} before a byte of an answer"


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
