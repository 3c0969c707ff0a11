"""The replicas: whether each engine answers, and whether a restart is pending."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from farrier_agent import loopback
from farrier_agent.collectors import CollectError
from farrier_agent.config import AgentConfig, Replica
from farrier_agent.engines import ENGINES
from farrier_agent.rollout.previous import PreviousError, config_hash, mark_in, read_unit
from farrier_agent.status import Unit

__all__ = ["ReplicasError", "Seen", "ask", "collect", "put_back", "restart_pending"]


class ReplicasError(CollectError):
    """The replicas could not be looked at; the message says why."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at a replica saw. ``detail`` says why it is not up.

    ``put_back``: its unit is the one from before, and another one than is wanted.
    """

    up: bool
    restart_pending: bool | None
    put_back: bool | None = None
    detail: str | None


async def ask(replica: Replica, *, deadline: float) -> str | None:
    """None when the engine serves the replica's model, else why it does not."""
    engine = ENGINES[replica.engine]
    answers = {}
    for path in engine.paths:
        answers[path] = await loopback.get(replica.port, path, deadline=deadline)
    return engine.judge(replica.model, answers)


def put_back(config: AgentConfig, replica: Replica) -> str | None:
    """The configuration that the replica's unit was put back to; None where it was not.

    That is over as soon as another unit stands there.
    """
    mark = mark_in(Path(config.previous_dir), replica.unit)
    if mark is None or mark.to == replica.config_hash:
        return None
    try:
        text = read_unit(Path(config.units_dir) / replica.unit)
    except PreviousError:
        return None
    return mark.to if text is not None and config_hash(text) == mark.to else None


def restart_pending(started: Path, config_hash: str) -> bool | None:
    """The engine runs from another configuration than *config_hash*; None when it cannot be read.

    *started* is the file in which the unit recorded the hash that it was started from.
    """
    try:
        recorded = started.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return recorded != config_hash if recorded else None


async def collect(
    config: AgentConfig, units: Sequence[Unit] | None, *, deadline: float
) -> dict[str, Seen]:
    """Look at every replica at once. Raises ReplicasError where the *units* are not known."""
    if units is None:
        raise ReplicasError("the states of the units could not be read")
    by_name = {unit.name: unit for unit in units}
    seen = await asyncio.gather(
        *(_look(config, replica, by_name[replica.unit], deadline) for replica in config.replicas)
    )
    return {replica.name: one for replica, one in zip(config.replicas, seen, strict=True)}


async def _look(config: AgentConfig, replica: Replica, unit: Unit, deadline: float) -> Seen:
    refused = await ask(replica, deadline=deadline) if unit.active else _not_running(unit)
    started = Path(config.started_dir) / replica.name
    back = put_back(config, replica)
    # a restart starts what its unit says
    expected = back or replica.config_hash
    return Seen(
        up=refused is None,
        restart_pending=restart_pending(started, expected) if unit.active else None,
        put_back=back is not None,
        detail=refused,
    )


def _not_running(unit: Unit) -> str:
    if unit.load_state != "loaded":
        return f"{unit.name} is {unit.load_state}"
    return f"{unit.name} is {unit.active_state} ({unit.sub_state})"
