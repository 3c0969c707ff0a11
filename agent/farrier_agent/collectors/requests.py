"""What the host's nginx saw of its requests, from a Unix socket that it writes its log to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from farrier_agent.collectors.datagrams import Datagrams
from farrier_agent.collectors.requests_log import ReplicaRequests, RequestCounts, Tally

__all__ = ["ReplicaRequests", "RequestCounts", "RequestLog"]


class RequestLog:
    """Receives what nginx, which runs as *nginx_user*, tells on the socket at *path*; counts it.

    One object lives as long as the process: its counts outlive a reading of the configuration,
    after which :meth:`serve` is told the replicas.
    """

    def __init__(
        self,
        path: Path,
        nginx_user: str,
        models: Mapping[str, str],
        *,
        sysctl: Path = Path("/proc/sys/net/unix/max_dgram_qlen"),
    ) -> None:
        self._tally = Tally(models)
        self._datagrams = Datagrams(
            path, self._tally, proxy="nginx", user=nginx_user, sysctl=sysctl
        )

    def serve(self, models: Mapping[str, str]) -> None:
        """Count for the replicas of *models* (model by replica) from now on."""
        self._tally.serve(models)

    async def collect(self, deadline: float) -> RequestCounts:  # noqa: ARG002 - it never waits
        """The counts now; listens from the first time on.

        Raises :class:`~farrier_agent.collectors.datagrams.DatagramsError` when it cannot.
        """
        self._datagrams.listen()
        return self._tally.shown()

    def close(self) -> None:
        """Listen no more, and take the socket's file away."""
        self._datagrams.close()
