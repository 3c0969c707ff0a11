"""Asks the other hosts of a model whether they serve it: the fleet's breaker.

An agent drains on its own judgement only in its own moment, and only while somebody else serves the
model and has nothing held against it. Where a rule is wrong, or a driver bad, on every host at
once, the first may drain before the others notice, and the rest stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from farrier_agent.agentcheck import SERVES, YES
from farrier_agent.config import Peer

__all__ = ["MOMENT", "ask", "its_moment"]

MOMENT = 1.0
"""Seconds that belong to one host: longer than the others take to hear of its drain."""
MOMENTS = 30
"""After so many it is the first one's again; of more hosts some share one."""
PATIENCE = 0.6
"""Seconds that a peer may take: an answer has to be there within the moment."""


def its_moment(host: str, peers: Sequence[Peer], now: float) -> bool:
    """*host* may decide at *now* (seconds since the epoch), and none of the hosts of *peers*."""
    hosts = sorted({host, *(peer.host for peer in peers)})
    turns = min(len(hosts), MOMENTS)
    begun, since = divmod(now, MOMENT)
    return int(begun) % turns == hosts.index(host) % turns and since < MOMENT - PATIENCE


async def ask(peers: Sequence[Peer]) -> dict[str, bool | None]:
    """Whether each of *peers*, by ``host/replica``, serves; None where it did not say."""
    answers = await asyncio.gather(*map(_ask, peers))
    return {
        f"{peer.host}/{peer.replica}": answer for peer, answer in zip(peers, answers, strict=True)
    }


async def _ask(peer: Peer) -> bool | None:
    try:
        return await asyncio.wait_for(_answer(peer), PATIENCE)
    except (OSError, EOFError, ValueError, asyncio.TimeoutError):
        return None


async def _answer(peer: Peer) -> bool | None:
    host, _, port = peer.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), limit=256)
    try:
        writer.write(SERVES + peer.replica.encode() + b"\n")
        said = await reader.readline()
    finally:
        writer.transport.abort()
    return said == YES if said.endswith(b"\n") else None
