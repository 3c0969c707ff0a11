"""All replicas of a host, and the units that the agent watches for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

from farrier_agent import status
from farrier_agent.collectors import CollectError
from farrier_agent.config import AgentConfig, Replica
from farrier_agent.control.errors import UsageError
from farrier_agent.draining.events import DrainAsked, Looked, StopBegan
from farrier_agent.draining.record import Now, Record
from farrier_agent.draining.states import Transition
from farrier_agent.draining.store import StoreError
from farrier_agent.serving.acting import Actor, evidence_unit
from farrier_agent.serving.connections import Connections
from farrier_agent.serving.counting import Counter
from farrier_agent.serving.healing import Health
from farrier_agent.serving.life import Life, seen
from farrier_agent.serving.looking import Looker
from farrier_agent.serving.view import drain, why_not_ready
from farrier_agent.spanning.cluster import read
from farrier_agent.spanning.runs import told
from farrier_agent.status import Unit
from farrier_agent.units.state import UnitState, plain
from farrier_agent.units.watch import Units

__all__ = ["House", "OfReplica"]

OWN_UNITS = ("nginx.service", "nvidia-persistenced.service", "nvidia-fabricmanager.service")
"""Units of the host that replicas need; those that it does not have are not shown."""
HEALTH_SECONDS = 5.0
UNITS_SECONDS = 1.0


class OfReplica:
    """One replica and all that belongs to it."""

    def __init__(
        self,
        replica: Replica,
        config: AgentConfig,
        units: Units,
        actor: Actor,
        changed: Callable[[], None],
        *,
        connections: Connections,
        told: Callable[[bytes | None], None],
        hands_off: Callable[[Record], bool],
    ) -> None:
        counter = Counter(replica.name, replica.port, config.nginx_user, connections)
        self.life = Life(replica, config, units, changed)
        self._node = next(
            (one for one in config.members if one.cluster and one.replica == replica.name), None
        )
        every = min(config.tick, HEALTH_SECONDS)
        self.health = Health(self.life, config, counter, actor, every, hands_off=hands_off)
        self.looker = Looker(self.life, units, counter, self.health, every, told=told)

    async def drain(self, event: DrainAsked | StopBegan) -> Transition:
        """Begin or join a drain, with what is in flight counted. Raises StoreError or OSError.

        One that waits for nobody says at once, and rightly, how many it cuts.
        """
        counted = replace(event, in_flight=await self.looker.count_now())
        step = await self.life.tell(counted)
        drain = step.record.drain
        if drain is not None and drain.forced:
            # who came in while the gate was closing
            return await self.life.tell(Looked(await self.looker.count_now()))
        return step

    async def try_to_drain(self, event: DrainAsked) -> Transition | None:
        """The same; None where the record cannot be kept, which is said elsewhere."""
        try:
            return await self.drain(event)
        except (StoreError, OSError):
            return None

    def show(self, shown: status.Replica, now: Now) -> status.Replica:
        """*shown* with all that is known here."""
        record = self.life.record
        gate = self.life.gate_open
        verdict = self.health.verdict
        why = record and why_not_ready(record, gate_open=gate, warming=self.life.warming)
        if record is not None and not record.engine_runs:
            why = shown.detail or why  # the unit's state says more than that it does not run
        if self._node is not None and self._node.cluster is not None:
            cluster = read(Path(self._node.cluster), time.time())
            shown = msgspec.structs.replace(
                shown, nodes=cluster.nodes, nodes_wanted=self._node.nodes
            )
            if cluster.lacks and not gate:
                why = f"waits for its Ray: {'; '.join(cluster.lacks)}"
        return msgspec.structs.replace(
            shown,
            gate=None if gate is None else "open" if gate else "closed",
            detail=self.life.problem or why or shown.detail,
            phase=record and record.phase.value,
            reason=record and record.reason,
            asked_by=record and record.by,
            since_at=record and record.since_at,
            in_flight=self.looker.in_flight,
            strangers=self.looker.count.strangers,
            drain=drain(record.drain, now) if record else None,
            last_drain=drain(record.last_drain, now) if record else None,
            health=verdict and verdict.state,
            health_restarts=self.health.restarts,
        )


class House:
    """The replicas of *config*. *changed* is called whenever something about one may have.

    *told* is given the pages of metrics that their engines tell (:class:`.Looker`). *hands_off*
    says of a record that its replica is not the agent's to restart.
    """

    def __init__(
        self,
        config: AgentConfig,
        changed: Callable[[], None],
        told: Callable[[str, bytes | None], None] = lambda _name, _page: None,
        hands_off: Callable[[Record], bool] = lambda _record: False,
    ) -> None:
        self._config = config
        self._changed = changed
        self._of_unit = {replica.unit: replica.name for replica in config.replicas}
        self._own = (*OWN_UNITS, *(member.unit for member in config.members))
        names = (*self._of_unit, *self._own, *map(evidence_unit, self._of_unit.values()))
        self.units = Units(names, path=Path(config.bus), changed=self._unit_changed)
        self.actor = Actor(config, self.units)
        connections = Connections([replica.port for replica in config.replicas], config.tick)
        self.replicas = {
            replica.name: OfReplica(
                *(replica, config, self.units, self.actor, changed),
                connections=connections,
                told=partial(told, replica.name),
                hands_off=hands_off,
            )
            for replica in config.replicas
        }

    def named(self, names: Sequence[str], *, every: bool = False) -> list[OfReplica]:
        """The replicas *names*, each once, or *every* one. Raises UsageError."""
        for name in names:
            if name not in self.replicas:
                has = ", ".join(sorted(self.replicas)) or "none"
                raise UsageError(
                    f"no replica is named {name!r} (this host has: {has})", "farrier-agent status"
                )
        if every:
            return list(self.replicas.values())
        return [self.replicas[name] for name in dict.fromkeys(names)]

    def loops(self) -> Iterator[asyncio.Task[None]]:
        """Begin everything that never ends."""
        loop = asyncio.get_running_loop()
        yield loop.create_task(self.units.run())
        for one in self.replicas.values():
            yield loop.create_task(one.looker.run())

    async def known(self, within: float) -> None:
        """Wait until the record of every replica was read, but at most *within* seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within
        for one in self.replicas.values():
            while one.life.record is None and (left := end - loop.time()) > 0:
                await one.life.news(left)

    async def close(self) -> None:
        """End what the replicas have under way; no gate and no record is touched."""
        for one in self.replicas.values():
            await one.health.close()
            await one.life.close()

    async def states(self) -> tuple[Unit, ...]:
        """The units of the replicas, for a collector. Raises CollectError when one is unknown."""
        found = []
        await self.units.known(UNITS_SECONDS)
        for unit in self._of_unit:
            state = self.units.state(unit)
            if state is None:
                raise CollectError(self.units.problem(unit) or f"{unit} was not read yet")
            found.append(state)
        return tuple(found)

    def own_units(self) -> tuple[Unit, ...]:
        """The host's own units, those that it has, and its shares of other hosts' replicas."""
        found = (self.units.state(name) for name in self._own)
        return tuple(plain(unit) for unit in found if unit and unit.load_state != "not-found")

    def run_of(self, name: str) -> bytes | None:
        """Which run of replica *name* there is, for its members; None where that is not known."""
        for unit, replica in self._of_unit.items():
            if replica == name:
                state = self.units.state(unit)
                return None if state is None else told(state)
        return None

    def _unit_changed(self, before: UnitState | None, now: UnitState) -> None:  # noqa: ARG002
        name = self._of_unit.get(now.name)
        if name is not None:
            self.replicas[name].life.tell_soon(seen(now, self.units.asked(now.name)))
        self._changed()
