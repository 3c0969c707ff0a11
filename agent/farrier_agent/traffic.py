"""What goes through the host: what its engines tell of their work, and its proxies of requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from farrier_agent import status
from farrier_agent.collectors.certificate import Certificate
from farrier_agent.collectors.engine import EngineMetrics
from farrier_agent.collectors.gateway import GatewayCounts, GatewayLog
from farrier_agent.collectors.requests import RequestCounts, RequestLog
from farrier_agent.collectors.slot import STALE_TICKS, Slot
from farrier_agent.config import AgentConfig
from farrier_agent.engines.passthrough import Family
from farrier_agent.metrics.page import Extra

__all__ = ["Logs", "Traffic"]


class _Closing(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=_Closing)


@dataclass(frozen=True)
class Logs:
    """Who receives what proxies tell, by the path of their socket.

    Their counts outlive a reading of the configuration.
    """

    requests: dict[str, RequestLog] = field(default_factory=dict)
    gateway: dict[str, GatewayLog] = field(default_factory=dict)

    def close(self) -> None:
        """Listen no more."""
        for requests in self.requests.values():
            requests.close()
        for gateway in self.gateway.values():
            gateway.close()


class Traffic:
    """The collectors of what passes the host: of *config*; *kept* outlives it."""

    def __init__(self, config: AgentConfig, kept: Logs, *, deadline: float) -> None:
        models = {replica.name: replica.model for replica in config.replicas}
        self._deadline = deadline
        self._proc = Path(config.proc_root)
        self._engines: EngineMetrics | None = None
        if models and "engine" not in config.collectors_off:
            self._engines = EngineMetrics(models, max_age=STALE_TICKS * config.tick)
        self._requests = _request_log(config, models, kept)
        self._gateway = _gateway_log(config, kept)
        self._certificate: Certificate | None = None
        if config.gateway_tls is not None and "certificate" not in config.collectors_off:
            self._certificate = Certificate(config.gateway_tls)
        self._engine_slot: Slot[tuple[Family, ...]] = Slot("engine", config.tick)
        self._request_slot: Slot[RequestCounts] = Slot("requests", config.tick)
        self._gateway_slot: Slot[GatewayCounts] = Slot("gateway", config.tick)
        self._certificate_slot: Slot[float] = Slot("certificate", config.tick)

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
        if self._gateway:
            yield self._gateway_slot
        if self._certificate:
            yield self._certificate_slot

    def looks(self) -> Iterator[Callable[[], Awaitable[object]]]:
        """What is to be done each tick."""
        if self._engines:
            collect = partial(self._engines.collect, self._deadline)
            yield partial(self._engine_slot.attempt, collect)
        if self._requests:
            receive = partial(self._requests.collect, self._deadline)
            yield partial(self._request_slot.attempt, receive)
        if self._gateway:
            hear = partial(self._gateway.collect, self._deadline)
            yield partial(self._gateway_slot.attempt, hear)
        if self._certificate:
            look = partial(self._certificate.collect, self._deadline)
            yield partial(self._certificate_slot.attempt, look)

    def page(self, now: float) -> Extra:
        """What ``/metrics`` has besides the snapshot, at *now* (``time.monotonic()``)."""
        return Extra(
            self._engine_slot.current(now) or (),
            self._request_slot.current(now),
            self._proc,
            self._engines.faulty if self._engines else {},
            self._gateway_slot.current(now),
            self._certificate_slot.current(now),
        )

    def requests(self, now: float) -> status.Requests | None:
        """How the log of requests fares at *now*."""
        counts = self._request_slot.current(now)
        if counts is None:
            return None
        refused = counts.lines.get("refused", 0) + counts.lines.get("garbled", 0)
        lines = sum(counts.lines.values()) - refused
        return status.Requests(lines=lines, refused=refused, last_at=counts.last_at)


def _request_log(config: AgentConfig, models: Mapping[str, str], kept: Logs) -> RequestLog | None:
    """The receiver of nginx's requests: the same one for as long as its socket has the path."""
    path = config.requests_socket if "requests" not in config.collectors_off else None
    one = _at(path, kept.requests, lambda at: RequestLog(at, config.nginx_user, models))
    if one is not None:
        one.serve(models)
    return one


def _gateway_log(config: AgentConfig, kept: Logs) -> GatewayLog | None:
    """That of HAProxy's."""
    path = config.gateway_socket if "gateway" not in config.collectors_off else None
    models = config.gateway_models
    one = _at(path, kept.gateway, lambda at: GatewayLog(at, config.gateway_user, models))
    if one is not None:
        one.serve(models)
    return one


def _at(path: str | None, kept: dict[str, T], make: Callable[[Path], T]) -> T | None:
    """The one of *kept* at *path*, made where there was none; those at others are closed."""
    for other in [at for at in kept if at != path]:
        kept.pop(other).close()
    if path is None:
        return None
    if path not in kept:
        kept[path] = make(Path(path))
    return kept[path]
