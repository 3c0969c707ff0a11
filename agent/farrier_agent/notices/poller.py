"""Asks the metadata service of one cloud, again and again, for what it announces to this host."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from farrier_agent.loopback import Ask, asker
from farrier_agent.notices.aws import Aws
from farrier_agent.notices.azure import Azure
from farrier_agent.notices.gcp import Gcp
from farrier_agent.notices.notice import Looked, Notice

__all__ = ["ADDRESS", "CLOUDS", "EVERY", "Poller"]

ADDRESS, PORT = "169.254.169.254", 80
"""Where all three clouds serve metadata: link-local, never routed."""

EVERY = 2.0
"""Seconds between two looks: the shortest notice is 30 s."""

DEADLINE = 2.0
"""Seconds that one answer may take."""


class Cloud(Protocol):
    """One cloud's metadata service."""

    async def look(self, now: float) -> Looked:
        """What it announces at *now*, seconds since the epoch."""


CLOUDS: dict[str, Callable[[Ask, float, bool], Cloud]] = {
    "aws": lambda ask, deadline, _gpu: Aws(ask, deadline),
    "azure": lambda ask, deadline, _gpu: Azure(ask, deadline),
    "gcp": Gcp,
}
"""The clouds by the name that ``agent.toml`` uses."""


class Poller:
    """Looks at one cloud's metadata service. Keeps when a notice without a time was first seen.

    *gpu*: the host has one; GCP announces maintenance earlier then.
    """

    def __init__(
        self,
        cloud: str,
        *,
        gpu: bool,
        address: str = ADDRESS,
        port: int = PORT,
        deadline: float = DEADLINE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cloud = CLOUDS[cloud](asker(port, address), deadline, gpu)
        self._clock = clock
        self._first: dict[str, float] = {}

    async def look(self) -> Looked:
        """What the service announces now. Never raises for what it meets."""
        looked = await self._cloud.look(self._clock())
        return Looked(tuple(map(self._dated, looked.notices)), looked.problems)

    def _dated(self, notice: Notice) -> Notice:
        """*notice* with the earliest time that it ever had where the cloud names none."""
        if not notice.at_once:
            return notice
        at = min(notice.at, self._first.setdefault(notice.id, notice.at))
        return msgspec.structs.replace(notice, at=at)
