"""Restarts of replicas that somebody asked for: drained, restarted, warm again.

A restart lives here and not with its asker, who may go away. Asked for twice, it is one. For a
rollout the host is marked first (*acting*, :mod:`.leases`), after which nothing returns by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from farrier_agent.control.errors import ControlError, RefusedError
from farrier_agent.draining.events import DrainAsked, ReadyAsked
from farrier_agent.draining.record import Asker, Phase, Record
from farrier_agent.draining.store import StoreError
from farrier_agent.rollout import lease as rules
from farrier_agent.serving.acting import ActError, Actor
from farrier_agent.serving.house import OfReplica
from farrier_agent.serving.leases import Leases
from farrier_agent.serving.results import is_drained

__all__ = ["Ended", "Restarts"]

Kind = Literal["a person's", "a rollout's", "a rollout's own"]
"""Whose a restart is. A rollout's leaves the gate closed, its own one ends with it open."""


@dataclass(frozen=True)
class Ended:
    """How a restart ended: ``why`` it came to nothing (None: all is well), and what to do then.

    ``took`` are its parts, in seconds, as far as they were seen: ``stop`` from the asking to the
    end of the engine, ``start`` until its unit was active again, ``warm`` until it was warm.
    """

    why: str | None = None
    next: str | None = None
    took: Mapping[str, float] = field(default_factory=dict)


class _NotDrainedError(Exception):
    """The drain came to nothing, so nothing was restarted; the message says why."""


class _UnderWay(NamedTuple):
    kind: Kind
    task: asyncio.Task[Ended]


class Restarts:
    """The restarts under way, by replica. *actor* has systemd do them, *leases* keeps the mark."""

    def __init__(self, actor: Actor, leases: Leases) -> None:
        self._actor = actor
        self._leases = leases
        self._under_way: dict[str, _UnderWay] = {}
        self._draining: set[str] = set()
        self._joining: deque[asyncio.Future[object]] = deque(maxlen=64)

    @property
    def under_way(self) -> tuple[str, ...]:
        """The replicas that are being restarted."""
        return tuple(name for name, one in self._under_way.items() if not one.task.done())

    def begin(
        self, one: OfReplica, drain: DrainAsked, token: int | None = None
    ) -> asyncio.Task[Ended]:
        """Restart *one* after *drain*, or join the restart that is under way, and its drain.

        With a *token* it is a rollout's own, from its drain to its open gate. Raises RefusedError.
        """
        name = one.life.name
        kind: Kind = "a person's" if token is None else "a rollout's own"
        if (task := self._joined(name, kind)) is None:
            return self._begin(name, kind, self._restart(one, drain, token))
        if name in self._draining:
            # one who forces is not held up by one who waits
            self._joining.append(asyncio.ensure_future(one.try_to_drain(drain)))
        return task

    def may_act(self, name: str) -> None:
        """Raises RefusedError where somebody else restarts the replica *name*."""
        self._joined(name, "a rollout's")

    def act(
        self, one: OfReplica, before: str | None, *, restart: bool = True
    ) -> asyncio.Task[Ended]:
        """Restart *one*, which is drained, and warm it up behind its closed gate.

        *before* is the run of its unit that is to end. Without *restart* that was done, and is only
        waited for. Raises RefusedError.
        """
        name = one.life.name
        task = self._joined(name, "a rollout's")
        work = self._act(one, before, restart=restart)
        if task is not None:
            work.close()
            return task
        return self._begin(name, "a rollout's", work)

    async def close(self) -> None:
        """End waiting for them. What systemd was asked for goes on; a drain that was asked for
        stays, and its replica closed, until somebody says ready or restart.
        """
        tasks = [one.task for one in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _joined(self, name: str, kind: Kind) -> asyncio.Task[Ended] | None:
        """The restart under way, if it is of this *kind*. Raises RefusedError."""
        now = self._under_way.get(name)
        if now is None or now.task.done():
            return None
        if now.kind != kind:
            raise RefusedError(
                f"replica {name}: a restart is under way already, {now.kind}",
                "farrier-agent status",
            )
        return now.task

    def _begin(
        self, name: str, kind: Kind, work: Coroutine[Any, Any, Ended]
    ) -> asyncio.Task[Ended]:
        task = asyncio.get_running_loop().create_task(work)
        self._under_way[name] = _UnderWay(kind, task)
        return task

    async def _restart(self, one: OfReplica, drain: DrainAsked, token: int | None) -> Ended:
        name = one.life.name
        self._draining.add(name)
        try:
            record = await self._drained(one, drain)
            if token is not None:
                await self._mark(name, token)
        except (StoreError, OSError) as error:
            return Ended(f"its drain cannot be recorded: {error}", "df -h /var/lib/farrier")
        except _NotDrainedError as error:
            return Ended(str(error))
        except ControlError as error:
            return Ended(f"not restarted: {error}", error.next)
        finally:
            self._draining.discard(name)
        try:
            await self._actor.restart(name)
        except ActError as error:
            return Ended(error.text, error.next)
        now = one.life.record
        if token is None and now is not None and now.held and not now.stopping:
            # an orderly stop ends a drain, but the engine may have crashed before it; a rollout's
            # stays until it is warm
            await self._let_go(one, now, drain.asker)
        ended = await self._warm(one, record.invocation_id, drain.asker)
        if token is not None and ended.why is None:
            await self._unmark(name)
        return ended

    async def _drained(self, one: OfReplica, drain: DrainAsked) -> Record:
        """Wait until *one* may be restarted. Raises _NotDrainedError, StoreError or OSError."""
        step = await one.drain(drain)
        if step.refused:
            raise _NotDrainedError(step.refused)
        return await _until_drained(one, step.record)

    async def _warm(self, one: OfReplica, before: str | None, asker: Asker) -> Ended:
        """Wait until the run after *before* serves, or does not."""
        while True:
            record = one.life.record
            if record is not None and record.invocation_id != before:
                if record.phase is Phase.READY and one.life.gate_open:
                    return Ended()
                if record.phase is Phase.FAILED:
                    return _does_not_come_back(one, record)
                if record.phase is Phase.DRAINED:
                    mine = record.drain is not None and asker in record.drain.askers
                    if not mine or not await self._let_go(one, record, asker):
                        return Ended(
                            f"it is warm, and kept closed: {record.reason}",
                            f"farrier-agent ready {one.life.name}",
                        )
            await one.life.news(5.0)

    async def _let_go(self, one: OfReplica, record: Record, asker: Asker) -> bool:
        """What *asker* wanted is done. What a rollout holds closed besides, it holds on."""
        own = asker.source == "rollout" or bool(record.rollouts)
        step = await one.life.try_to_tell(ReadyAsked(asker, own=own))
        return step is not None and not step.record.held

    async def _act(self, one: OfReplica, before: str | None, *, restart: bool) -> Ended:
        clock = _Parts(one, before)
        seeing = asyncio.ensure_future(clock.run())
        try:
            ended = await self._acted(one, before, restart=restart)
        finally:
            seeing.cancel()
        return Ended(ended.why, ended.next, clock.seen() if restart else {})

    async def _acted(self, one: OfReplica, before: str | None, *, restart: bool) -> Ended:
        if restart:
            try:
                # it is: but one that was opened by hand, or warms up, is looked at once more
                await _until_drained(one, one.life.record)
                await self._actor.restart(one.life.name)
            except _NotDrainedError as error:
                return Ended(str(error))
            except ActError as error:
                return Ended(error.text, error.next)
        while True:
            record = one.life.record
            if record is not None and record.invocation_id != before:
                if record.phase in {Phase.DRAINED, Phase.READY}:
                    return Ended()
                if record.phase is Phase.FAILED:
                    return _does_not_come_back(one, record)
                if record.phase is Phase.STOPPED:
                    log = f"journalctl -u {one.life.replica.unit} -e"
                    return Ended(f"it does not run: {record.reason}", log)
            await one.life.news(5.0)

    async def _mark(self, name: str, token: int) -> None:
        """Raises ControlError: then nothing may be restarted."""
        await self._leases.do(
            lambda state, now: self._leases.keep(rules.alone(state, token, name, now))
        )

    async def _unmark(self, name: str) -> None:
        try:
            await self._leases.do(
                lambda state, _: self._leases.keep(rules.alone_ended(state, name))
            )
        except ControlError:
            return  # it is said elsewhere; the mark stays, which closes nothing that is open


class _Parts:
    """When *one*, whose run was *before*, went through the parts of its restart."""

    def __init__(self, one: OfReplica, before: str | None) -> None:
        self._one = one
        self._before = before
        self._at = {"asked": time.monotonic()}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._look()
            await self._one.life.news(5.0)

    def seen(self) -> dict[str, float]:
        """The seconds of each part that was seen from its beginning to its end."""
        self._look()
        marks = ("asked", "stop", "start", "warm")
        return {
            part: round(self._at[part] - self._at[begin], 3)
            for begin, part in pairwise(marks)
            if begin in self._at and part in self._at
        }

    def _look(self) -> None:
        record = self._one.life.record
        if record is None:
            return
        anew = record.invocation_id != self._before
        if anew or not record.engine_runs:
            self._at.setdefault("stop", time.monotonic())
        if anew and record.engine_runs:
            self._at.setdefault("start", time.monotonic())
        if anew and record.phase in {Phase.DRAINED, Phase.READY}:
            self._at.setdefault("warm", time.monotonic())


async def _until_drained(one: OfReplica, known: Record | None) -> Record:
    """Wait until *one* is drained. Raises _NotDrainedError when its drain is taken back."""
    while (record := one.life.record or known) is None or not is_drained(record):
        if record and record.phase in {Phase.READY, Phase.WARMING} and not record.held:
            raise _NotDrainedError(f"its drain was taken back: {record.reason} (by {record.by})")
        await one.life.news(5.0)
    return record


def _does_not_come_back(one: OfReplica, record: Record) -> Ended:
    log = f"journalctl -u {one.life.replica.unit} -e"
    return Ended(f"it does not come back: {record.reason}", log)
