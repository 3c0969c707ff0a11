"""What goes through the host: what its engines tell of their work, and its nginx of requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from farrier_agent import status
from farrier_agent.collectors.engine import EngineMetrics
from farrier_agent.collectors.requests import RequestCounts, RequestLog
from farrier_agent.collectors.slot import STALE_TICKS, Slot
from farrier_agent.config import AgentConfig
from farrier_agent.engines.passthrough import Family
from farrier_agent.metrics.page import Extra

__all__ = ["RequestLogs", "Traffic"]

RequestLogs = dict[str, RequestLog]
"""By the path of their socket: their counts outlive a reading of the configuration."""


class Traffic:
    """The collectors ``engine`` and ``requests`` of *config*; *kept* outlives it."""

    def __init__(self, config: AgentConfig, kept: RequestLogs, *, deadline: float) -> None:
        models = {replica.name: replica.model for replica in config.replicas}
        self._deadline = deadline
        self._proc = Path(config.proc_root)
        self._engines: EngineMetrics | None = None
        if models and "engine" not in config.collectors_off:
            self._engines = EngineMetrics(models, max_age=STALE_TICKS * config.tick)
        self._requests = _request_log(config, models, kept)
        self._engine_slot: Slot[tuple[Family, ...]] = Slot("engine", config.tick)
        self._request_slot: Slot[RequestCounts] = Slot("requests", config.tick)

    def told(self, replica: str, page: bytes | None) -> None:
        """The engine of *replica* told *page*; None: it does not run."""
        if self._engines is not None:
            self._engines.told(replica, page)

    def slots(self) -> Iterator[Slot[Any]]:
        """Those of the collectors that run."""
        if self._engines:
            yield self._engine_slot
        if self._requests:
            yield self._request_slot

    def looks(self) -> Iterator[Callable[[], Awaitable[object]]]:
        """What is to be done each tick."""
        if self._engines:
            collect = partial(self._engines.collect, self._deadline)
            yield partial(self._engine_slot.attempt, collect)
        if self._requests:
            receive = partial(self._requests.collect, self._deadline)
            yield partial(self._request_slot.attempt, receive)

    def page(self, now: float) -> Extra:
        """What ``/metrics`` has besides the snapshot, at *now* (``time.monotonic()``)."""
        return Extra(
            self._engine_slot.current(now) or (),
            self._request_slot.current(now),
            self._proc,
            self._engines.faulty if self._engines else {},
        )

    def requests(self, now: float) -> status.Requests | None:
        """How the log of requests fares at *now*."""
        counts = self._request_slot.current(now)
        if counts is None:
            return None
        refused = counts.lines.get("refused", 0) + counts.lines.get("garbled", 0)
        lines = sum(counts.lines.values()) - refused
        return status.Requests(lines=lines, refused=refused, last_at=counts.last_at)


def _request_log(
    config: AgentConfig, models: Mapping[str, str], kept: RequestLogs
) -> RequestLog | None:
    """The receiver of nginx's requests: the same one for as long as its socket has the path."""
    path = config.requests_socket if "requests" not in config.collectors_off else None
    for other in [one for one in kept if one != path]:
        kept.pop(other).close()
    if path is None:
        return None
    if path not in kept:
        kept[path] = RequestLog(Path(path), config.nginx_user, models)
    kept[path].serve(models)
    return kept[path]
