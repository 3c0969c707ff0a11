"""Makes the agent's snapshot of what the collectors last saw. Values in, values out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from farrier_agent import status
from farrier_agent.collectors.replicas import Seen
from farrier_agent.config import AgentConfig
from farrier_agent.config import Replica as Wanted
from farrier_agent.status import (
    Agent,
    AgentCheck,
    Collector,
    Gpus,
    Health,
    Notice,
    Nvml,
    Reason,
    Replica,
    Requests,
    Rollout,
    Status,
    Unit,
    UnitOnGpu,
    Xid,
)
from farrier_agent.units.state import UnitState, plain

__all__ = ["Change", "Machine", "changes", "compose", "reasons", "summary"]

UNKNOWN = "state not known"
_LEVELS = {"unhealthy": logging.ERROR, "degraded": logging.WARNING, "unknown": logging.WARNING}
NEEDED = ("gpu", "units", "replicas")
"""The collectors without whose data nobody can say that the host is ready."""


class Machine(NamedTuple):
    """What is known of the host's GPUs; None, or nothing, where it is not."""

    gpus: Gpus | None = None
    nvml: Nvml | None = None
    xids: tuple[Xid, ...] = ()
    units: tuple[UnitOnGpu, ...] = ()
    health: Health | None = None


def compose(
    config: AgentConfig,
    agent: Agent,
    *,
    at: float,
    collectors: Sequence[Collector],
    machine: Machine = Machine(),  # noqa: B008 - it is immutable
    units: Sequence[Unit] | None = None,
    seen: Mapping[str, Seen] | None = None,
    show: Callable[[Replica], Replica] = lambda replica: replica,
    own_units: Sequence[Unit] = (),
    notices: Sequence[Notice] = (),
    agent_check: AgentCheck | None = None,
    requests: Requests | None = None,
    web: tuple[bool | None, str | None] = (None, None),
    rollout: Rollout | None = None,
) -> Status:
    """The status of the host at *at*; None stands for data that are missing or stale.

    *web* says whether the web configuration is good, and what is wrong with it. *show* adds to a
    replica what its life says: its phase, its gate, its drain.
    """
    states = {unit.name: unit for unit in units or ()}
    replicas = tuple(
        show(_replica(replica, states.get(replica.unit), (seen or {}).get(replica.name)))
        for replica in config.replicas
    )
    released = machine.nvml is not None and machine.nvml.kind == "released"
    needed = [one for one in collectors if not (released and one.name == "gpu")]
    why = tuple(reasons(needed, replicas))
    return Status(
        host=config.host,
        at=at,
        accelerator=config.accelerator,
        agent=agent,
        ready=not why,
        reasons=why,
        collectors=tuple(collectors),
        gpus=machine.gpus,
        nvml=machine.nvml,
        xids=machine.xids,
        gpu_units=machine.units,
        health=machine.health,
        requests=requests,
        web_good=web[0],
        web_problem=web[1],
        rollout=rollout,
        replicas=replicas,
        units=tuple(own_units),
        notices=tuple(notices),
        agent_check=agent_check,
    )


def _replica(wanted: Wanted, unit: Unit | None, seen: Seen | None) -> Replica:
    return status.Replica(
        name=wanted.name,
        model=wanted.model,
        engine=wanted.engine,
        unit=wanted.unit,
        port=wanted.port,
        gpus=tuple(wanted.gpus),
        unit_state=plain(unit) if isinstance(unit, UnitState) else unit,
        up=seen.up if seen else None,
        restart_pending=seen.restart_pending if seen else None,
        put_back=seen.put_back if seen else None,
        detail=seen.detail if seen else None,
        restarts=unit.restarts if isinstance(unit, UnitState) else None,
    )


def reasons(collectors: Sequence[Collector], replicas: Sequence[Replica]) -> Iterator[str]:
    """Why a host is not ready; nothing when it is."""
    for collector in collectors:
        if not collector.fresh and collector.name in NEEDED:
            yield f"collector {collector.name}: no fresh data: {collector.error or 'too slow'}"
    for replica in replicas:
        why = _why_not(replica)
        if why is not None:
            yield f"replica {replica.name}: {why}"


def _why_not(replica: Replica) -> str | None:
    if replica.up is None:
        return "its state is not known"
    if not replica.up and replica.phase in {None, "ready", "stopped", "starting"}:
        return f"not up: {replica.detail}"
    if replica.phase != "ready" or replica.gate != "open":
        return replica.detail or f"gate {replica.gate or 'not known'}"
    return None


class Change(NamedTuple):
    """A line for the journal, about the replica of that name, if it is about one."""

    text: str
    replica: str | None = None
    level: int = logging.INFO


def changes(old: Status | None, new: Status) -> Iterator[Change]:
    """What the journal is told: one line for each thing that is otherwise than before."""
    yield from _replica_changes(old, new)
    yield from map(Change, _host_changes(old, new))
    yield from _verdicts(old, new)


def _replica_changes(old: Status | None, new: Status) -> Iterator[Change]:
    before = {replica.name: replica for replica in old.replicas} if old else {}
    for replica in new.replicas:
        was = before.get(replica.name)
        if _story(replica) != (_story(was) if was else UNKNOWN):
            yield Change(f"replica {replica.name}: {_story(replica)}", replica.name)


def _host_changes(old: Status | None, new: Status) -> Iterator[str]:
    yield from _collector_changes(old, new)
    problems = new.gpus.problems if new.gpus else ()
    told = old.gpus.problems if old and old.gpus else ()
    yield from (problem for problem in problems if problem not in told)
    lost = {gpu.uuid for gpu in old.gpus.devices if not gpu.up} if old and old.gpus else set()
    for gpu in new.gpus.devices if new.gpus else ():
        if gpu.up == (gpu.uuid in lost):
            state = "is back" if gpu.up else f"does not answer ({gpu.problem or 'lost'})"
            yield f"GPU {gpu.index} ({gpu.uuid}) {state}"
    if new.web_problem and new.web_problem != (old and old.web_problem):
        yield f"web configuration: {new.web_problem}"
    begun = all(collector.duration_seconds is not None for collector in new.collectors)
    was_begun = old and all(one.duration_seconds is not None for one in old.collectors)
    if begun and (not was_begun or not old or old.ready != new.ready):
        yield "host is ready" if new.ready else "host is not ready: " + "; ".join(new.reasons)


def _verdicts(old: Status | None, new: Status) -> Iterator[Change]:
    """What is concluded now, and what is not any more."""
    if new.health is None:
        return
    now = {_key(one): one for one in new.health.host.reasons}
    before = {_key(one): one for one in old.health.host.reasons} if old and old.health else {}
    for key, one in now.items():
        if key not in before or before[key].state != one.state:
            todo = one.next + (f": {one.command}" if one.command else "")
            text = f"{_subject(one, new)}: {one.state}: {one.rule}: {one.text}; next: {todo}"
            yield Change(text, one.replica, _LEVELS[one.state])
    for key, one in before.items():
        if key not in now:
            yield Change(f"{_subject(one, new)}: {one.rule} is over", one.replica)


def _key(one: Reason) -> tuple[str, str | None, str | None]:
    return one.rule, one.gpu, one.replica


def _subject(one: Reason, snapshot: Status) -> str:
    if one.gpu is not None:
        index = {gpu.uuid: gpu.index for gpu in snapshot.gpus.devices} if snapshot.gpus else {}
        return f"GPU {index[one.gpu]} ({one.gpu})" if one.gpu in index else f"GPU {one.gpu}"
    return f"replica {one.replica}" if one.replica else "host"


def _collector_changes(old: Status | None, new: Status) -> Iterator[str]:
    before = {collector.name: collector for collector in old.collectors} if old else {}
    for collector in new.collectors:
        was = before.get(collector.name)
        if collector.duration_seconds is None or (was and was.success == collector.success):
            continue
        if not collector.success:
            yield f"collector {collector.name} failed: {collector.error}"
        elif was and was.duration_seconds is not None:
            yield f"collector {collector.name} works again"


def _story(replica: Replica) -> str:
    """The state of a replica in words that change only when the state does.

    Of its phases its life tells.
    """
    if replica.up is None:
        return UNKNOWN
    words = ["up" if replica.up else "not up", f"gate {replica.gate or 'not known'}"]
    if replica.restart_pending:
        words.append("restart pending")
    if replica.put_back:
        words.append("put back to what it had before")
    told = replica.phase not in {None, "ready"} or replica.detail is None
    return ", ".join(words) + ("" if told else f": {replica.detail}")


def summary(snapshot: Status) -> str:
    """The host in one line, for ``systemctl status``."""
    words = [f"notice: {one.kind} by {one.cloud}" for one in snapshot.notices if one.drains]
    busy = [one for one in snapshot.replicas if one.drain is not None]
    for one in busy[:3]:
        waits = "" if one.in_flight is None else f", {one.in_flight} in flight"
        words.append(f"{one.name}: {one.phase}{waits}")
    shown = tuple(f"replica {one.name}: " for one in busy[:3])
    rest = [reason for reason in snapshot.reasons if not shown or not reason.startswith(shown)]
    return "; ".join([*words, *rest]) or "ready"
