"""Hosts and replicas as rows of the overview. Pure: answers go in, plain values come out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from farrier_agent.status import Gpu, Reason, Replica, Status
from farrier_agent.story import story

from farrier.fleet.errors import ShellError
from farrier.fleet.target import Target
from farrier.overview.look import Look

__all__ = ["HostRow", "Memory", "ReplicaRow", "Rollout", "host_row"]


@dataclass(frozen=True)
class Memory:
    """GPU memory in bytes; None where a GPU does not tell."""

    used: int | None
    total: int | None


@dataclass(frozen=True)
class Rollout:
    """What a rollout has to do with a host: its lease, and what it is doing to it.

    ``expires_in`` in seconds, None where the lease is not alive.
    """

    rollout: str | None
    holder: str | None
    expires_in: float | None
    acting: str | None
    problem: str | None


@dataclass(frozen=True)
class ReplicaRow:
    """One replica; None stands for what is not known.

    ``story`` are lines for a person: its drain, its unit, why it is not up.
    """

    replica: str
    model: str
    engine: str
    engine_version: str | None
    phase: str | None
    gate: str | None
    verdict: str | None
    reason: str | None
    in_flight: int | None
    memory: Memory | None
    restart_pending: bool | None
    put_back: bool | None = None
    story: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """It takes requests."""
        return self.phase == "ready" and self.gate == "open"


@dataclass(frozen=True)
class HostRow:
    """One host. With an ``error`` nothing else is known of it.

    ``reasons`` of the host itself, first its verdict's, with what to do; ``units`` those of its own
    that do not run; ``driver_version`` is the loaded one's, by NVML. ``drift`` is filled in by
    :mod:`.drift`, which knows the other hosts.
    """

    host: str
    groups: tuple[str, ...]
    error: Mapping[str, str] | None = None
    at: float | None = None
    agent_version: str | None = None
    driver_version: str | None = None
    ready: bool | None = None
    verdict: str | None = None
    reasons: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    memory: Memory | None = None
    rollout: Rollout | None = None
    replicas: tuple[ReplicaRow, ...] = ()
    drift: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)

    def to_json(self) -> dict[str, Any]:
        """This host as plain JSON values."""
        return asdict(self)


def host_row(
    target: Target, look: Look | None, error: ShellError | None, seconds: float = 0.0
) -> HostRow:
    """The row of *target*, from what it said or why it said nothing; *seconds* that it took."""
    if look is None:
        told = error.to_json() if error else {"kind": "", "what": "nobody asked it", "next": ""}
        return HostRow(target.name, target.groups, error=told, seconds=seconds)
    status = look.status
    health = status.health
    return HostRow(
        target.name,
        target.groups,
        at=status.at,
        agent_version=status.agent.version,
        driver_version=status.gpus.driver_version if status.gpus else None,
        ready=status.ready,
        verdict=health.host.state if health else None,
        reasons=tuple(_host_reasons(status)),
        units=tuple(
            f"{unit.name} is {unit.active_state} ({unit.sub_state})"
            for unit in status.units
            if not unit.active and unit.load_state != "not-found"
        ),
        memory=_memory(status.gpus.devices) if status.gpus else None,
        rollout=_rollout(status),
        replicas=tuple(_replica(one, look) for one in status.replicas),
        seconds=seconds,
    )


def _host_reasons(status: Status) -> Iterator[str]:
    """What is said of the host, not of a replica: each replica has its own in its row."""
    for notice in status.notices:
        if notice.drains:
            yield f"notice of {notice.cloud}: {notice.kind}; this host is drained for it"
    shown = {reason for verdict in _of_replicas(status) for reason in verdict}
    for reason in status.health.host.reasons if status.health else ():
        if reason not in shown:
            yield _said(reason, status)
    for text in status.reasons:
        if not text.startswith("replica "):
            yield text
    if status.web_problem:
        yield f"web configuration: {status.web_problem}"


def _of_replicas(status: Status) -> Iterable[tuple[Reason, ...]]:
    return [one.reasons for one in status.health.replicas.values()] if status.health else []


def _said(one: Reason, status: Status) -> str:
    index = {gpu.uuid: gpu.index for gpu in status.gpus.devices} if status.gpus else {}
    who = f"GPU {index.get(one.gpu, one.gpu)} " if one.gpu else ""
    todo = one.next + (f": {one.command}" if one.command else "")
    held = f"; not drained: {one.held_back}" if one.held_back else ""
    return f"{who}{one.rule}: {one.text}{held}; next: {todo}"


def _replica(one: Replica, look: Look) -> ReplicaRow:
    status = look.status
    verdict = status.health.replicas.get(one.name) if status.health else None
    by_index = {gpu.index: gpu for gpu in status.gpus.devices} if status.gpus else {}
    gpus = [by_index[index] for index in one.gpus if index in by_index]
    why = _said(verdict.reasons[0], status) if verdict and verdict.reasons else None
    lines = story(one, status.at)
    return ReplicaRow(
        replica=one.name,
        model=one.model,
        engine=one.engine,
        engine_version=look.versions.get(one.unit),
        phase=one.phase,
        gate=one.gate,
        verdict=verdict.state if verdict else None,
        reason=why or (one.detail if one.up is False else None),
        in_flight=one.in_flight,
        memory=_memory(gpus) if gpus else None,
        restart_pending=one.restart_pending,
        put_back=one.put_back,
        story=tuple(line for line in lines if not line.startswith("last drain: ")),
    )


def _memory(gpus: Iterable[Gpu]) -> Memory | None:
    gpus = tuple(gpus)
    if not gpus:
        return None
    used = [gpu.memory_used_bytes for gpu in gpus]
    total = [gpu.memory_total_bytes for gpu in gpus]
    return Memory(_sum(used), _sum(total))


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _rollout(status: Status) -> Rollout | None:
    one = status.rollout
    if one is None or not (one.rollout or one.acting or one.problem):
        return None
    return Rollout(one.rollout, one.holder, one.expires_in, one.acting, one.problem)
