"""What the gateway's HAProxy saw of its requests, from a Unix socket that it writes its log to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from farrier_agent.collectors.datagrams import Datagrams
from farrier_agent.collectors.gateway_log import GatewayCounts, GatewayTally

__all__ = ["GatewayCounts", "GatewayLog"]


class GatewayLog:
    """Receives what HAProxy, which runs as *user*, tells on the socket at *path*; counts it.

    One object lives as long as the process: its counts outlive a reading of the configuration,
    after which :meth:`serve` is told the fleet's models.
    """

    def __init__(self, path: Path, user: str, models: Iterable[str]) -> None:
        self._tally = GatewayTally(models)
        self._datagrams = Datagrams(path, self._tally, proxy="HAProxy", user=user)

    def serve(self, models: Iterable[str]) -> None:
        """Count for *models* from now on."""
        self._tally.serve(models)

    async def collect(self, deadline: float) -> GatewayCounts:  # noqa: ARG002 - it never waits
        """The counts now; listens from the first time on.

        Raises :class:`~farrier_agent.collectors.datagrams.DatagramsError` when it cannot.
        """
        self._datagrams.listen()
        return self._tally.shown()

    def close(self) -> None:
        """Listen no more, and take the socket's file away."""
        self._datagrams.close()
