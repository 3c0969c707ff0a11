"""Restarts of replicas that somebody asked for: drained, restarted, warm again.

A restart lives here and not with its asker, who may go away. Asked for twice, it is one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from farrier_agent.draining.events import DrainAsked, ReadyAsked
from farrier_agent.draining.record import Phase, Record
from farrier_agent.draining.store import StoreError
from farrier_agent.serving.acting import ActError, Actor
from farrier_agent.serving.house import OfReplica

__all__ = ["Ended", "Restarts"]


@dataclass(frozen=True)
class Ended:
    """How a restart ended: ``why`` it came to nothing (None: it is ready), and what to do then."""

    why: str | None = None
    next: str | None = None


class _NotDrainedError(Exception):
    """The drain came to nothing, so nothing was restarted; the message says why."""


class Restarts:
    """The restarts under way, by replica. *actor* has systemd do them."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self._tasks: dict[str, asyncio.Task[Ended]] = {}
        self._draining: set[str] = set()
        self._joining: deque[asyncio.Future[object]] = deque(maxlen=64)

    def begin(self, one: OfReplica, drain: DrainAsked) -> asyncio.Task[Ended]:
        """Restart *one* after *drain*, or join the restart that is under way, and its drain."""
        name = one.life.name
        task = self._tasks.get(name)
        if task is None or task.done():
            task = asyncio.get_running_loop().create_task(self._restart(one, drain))
            self._tasks[name] = task
        elif name in self._draining:
            # one who forces is not held up by one who waits
            self._joining.append(asyncio.ensure_future(one.try_to_drain(drain)))
        return task

    async def close(self) -> None:
        """End waiting for them. What systemd was asked for goes on; a drain that was asked for
        stays, and its replica closed, until somebody says ready or restart.
        """
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _restart(self, one: OfReplica, drain: DrainAsked) -> Ended:
        name = one.life.name
        self._draining.add(name)
        try:
            record = await self._drained(one, drain)
        except (StoreError, OSError) as error:
            return Ended(f"its drain cannot be recorded: {error}", "df -h /var/lib/farrier")
        except _NotDrainedError as error:
            return Ended(str(error))
        finally:
            self._draining.discard(name)
        try:
            await self._actor.restart(name)
        except ActError as error:
            return Ended(error.text, error.next)
        if (now := one.life.record) is not None and now.held and not now.stopping:
            # an orderly stop ends a drain, but the engine may have crashed before it
            await one.life.try_to_tell(ReadyAsked(drain.asker))
        return await self._warm(one, record.invocation_id)

    async def _drained(self, one: OfReplica, drain: DrainAsked) -> Record:
        """Wait until *one* may be restarted. Raises _NotDrainedError, StoreError or OSError."""
        step = await one.drain(drain)
        if step.refused:
            raise _NotDrainedError(step.refused)
        while not _may_restart(record := one.life.record or step.record):
            if record.phase in {Phase.READY, Phase.WARMING} and not record.held:
                raise _NotDrainedError(
                    f"its drain was taken back: {record.reason} (by {record.by})"
                )
            await one.life.news(5.0)
        return record

    async def _warm(self, one: OfReplica, before: str | None) -> Ended:
        """Wait until the run after *before* serves, or does not."""
        while True:
            record = one.life.record
            if record is not None and record.invocation_id != before:
                if record.phase is Phase.READY and one.life.gate_open:
                    return Ended()
                if record.phase is Phase.FAILED:
                    log = f"journalctl -u {one.life.replica.unit} -e"
                    return Ended(f"it does not come back: {record.reason}", log)
                if record.phase is Phase.DRAINED:
                    return Ended(
                        f"it is warm, and kept closed: {record.reason}",
                        f"farrier-agent ready {one.life.name}",
                    )
            await one.life.news(5.0)


def _may_restart(record: Record) -> bool:
    """Nothing of it is in flight any more, or there is no engine that could have something."""
    return record.phase is Phase.DRAINED or not record.engine_runs
