"""Replicas that were told what somebody asked for, and what becomes of it, for who asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import NamedTuple, TypeVar

from farrier_agent.control import protocol
from farrier_agent.control.errors import ControlError
from farrier_agent.control.peer import Asker as Peer
from farrier_agent.control.protocol import Result
from farrier_agent.control.server import Tell
from farrier_agent.draining.events import DrainAsked, Event, ReadyAsked, StopBegan
from farrier_agent.draining.record import Asker, Phase, Record
from farrier_agent.draining.states import Transition
from farrier_agent.draining.store import StoreError
from farrier_agent.rollout.lease import Lease
from farrier_agent.serving.following import follow, watch
from farrier_agent.serving.house import OfReplica
from farrier_agent.serving.life import boottime
from farrier_agent.serving.restarting import Ended
from farrier_agent.serving.results import held_by_others, refused, result

__all__ = [
    "Begun",
    "BegunRestart",
    "all_of",
    "asker_of",
    "drained",
    "restarted",
    "served",
    "told",
    "told_one",
]

T = TypeVar("T")


def asker_of(
    request: protocol.Drain | protocol.Ready | protocol.Restart,
    peer: Peer,
    lease: Lease | None,
    reason: str,
) -> Asker:
    """Who asks: the rollout that has *lease*, or a person."""
    why = request.reason or reason
    if lease is not None:
        held = f"held by rollout {lease.rollout}: {why}"
        return Asker(request.holder or lease.holder, "rollout", held, lease.rollout)
    by = f"{request.holder} ({peer.user})" if request.holder else peer.user
    return Asker(by, "person", why)


class Begun(NamedTuple):
    """One replica that was told of a drain, or of its end; how it was before, and what followed."""

    one: OfReplica
    begun: float
    before: Record | None
    was_open: bool
    in_flight: int | None
    step: Transition


class BegunRestart(NamedTuple):
    """One replica whose restart was begun, unless it was *refused*."""

    one: OfReplica
    begun: float
    in_flight: int | None
    task: asyncio.Task[Ended] | None = None
    refused: str = ""


async def told_one(one: OfReplica, event: DrainAsked | ReadyAsked) -> Begun:
    """Tell *one* of *event*. Raises ControlError."""
    begun, before, was_open = boottime(), one.life.record, one.life.takes_requests
    step = await told(one, event)
    return Begun(one, begun, before, was_open, one.looker.in_flight, step)


async def drained(it: Begun, tell: Tell, *, wait: bool) -> Result:
    """What becomes of a drain; with *wait* when it is over."""
    one, record = it.one, it.step.record
    if it.step.refused:
        return refused(one.life.name, it.step)
    changed = it.before is None or record.phase is not it.before.phase
    if wait and record.phase is Phase.DRAINING:
        record = await follow(one, tell, lambda record: record.phase is not Phase.DRAINING)
        if not record.held and record.phase in {Phase.READY, Phase.WARMING}:
            text = f"not drained: {record.reason} (asked by {record.by})"
            return result(record, it.begun, in_flight=it.in_flight, code=1, text=text)
    text = "" if record.phase is not Phase.STOPPED else "its engine does not run"
    return result(record, it.begun, in_flight=it.in_flight, changed=changed, text=text, wait=wait)


async def served(it: Begun, tell: Tell, *, wait: bool) -> Result:
    """What becomes of a *ready*; with *wait* when it serves, or will not by itself."""
    one, record = it.one, it.step.record
    if it.step.refused:
        return refused(one.life.name, it.step)
    if record.others and record.held:
        text = held_by_others(record)
        return result(record, it.begun, code=3, text=text, changed=False, wait=False)
    if wait:
        record = await follow(one, tell, lambda record: _settled(one, record))
    code, text = 0, ""
    if wait and not one.life.takes_requests:
        code, text = 1, record.reason
    elif record.phase is Phase.WARMING:
        text = "its gate opens when it is warm"
    elif record.phase in {Phase.STOPPED, Phase.STARTING, Phase.FAILED}:
        text = f"it is not held any more: {record.reason}"
    return result(record, it.begun, code=code, text=text, changed=not it.was_open, wait=wait)


async def restarted(it: BegunRestart, tell: Tell, *, wait: bool) -> Result:
    """What becomes of a restart; with *wait* when it is over."""
    one, task = it.one, it.task
    record = one.life.record
    if task is None:
        state = record.phase.value if record else "unknown"
        return Result(replica=one.life.name, state=state, code=3, changed=False, text=it.refused)
    if not wait:
        # a refusal comes at once; whatever comes later is in the journal
        await asyncio.wait({task}, timeout=0.5)
    else:
        await watch(one, task, tell)
    record = one.life.record
    assert record is not None  # noqa: S101 - it was told of the drain
    if not task.done():
        text = "its restart goes on: farrier-agent status"
        return result(record, it.begun, in_flight=it.in_flight, text=text, wait=False)
    ended = task.result()
    text = ended.why or ""
    if ended.next:
        text += f"; next: {ended.next}"
    last = record.last_drain
    cut = last.cut or 0 if last and last.forced and last.begun >= it.begun - 1 else 0
    return result(
        record,
        it.begun,
        in_flight=it.in_flight,
        code=1 if ended.why else 0,
        text=text,
        cut=cut,
    )


async def all_of(works: Iterable[Awaitable[T]]) -> tuple[T, ...]:
    """All of *works* at once."""
    return tuple(await asyncio.gather(*works))


async def told(one: OfReplica, event: Event) -> Transition:
    """Tell *one* of *event*, with what is in flight counted for a drain. Raises ControlError."""
    try:
        if isinstance(event, DrainAsked | StopBegan):
            return await one.drain(event)
        return await one.life.tell(event)
    except (StoreError, OSError) as error:
        raise ControlError(
            f"replica {one.life.name}: nothing was done: {error}", "df -h /var/lib/farrier"
        ) from error


def _settled(one: OfReplica, record: Record) -> bool:
    """What became of a *ready* is known: it serves, or it will not by itself."""
    if record.phase is Phase.READY:
        return bool(one.life.gate_open)
    return record.phase not in {Phase.WARMING, Phase.STARTING, Phase.DRAINING}
