"""Acts on verdicts: a replica whose GPU is unhealthy is drained, and served again once it is well.

What is to be done :mod:`.health.deciding` says. Here it is done, one host of the model after
another, and a drain only while somebody else serves the model or the replica does not answer
anyway (:mod:`.peers`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from farrier_agent.config import AgentConfig
from farrier_agent.draining.events import DrainAsked, ReadyAsked
from farrier_agent.draining.record import Asker, Record
from farrier_agent.health.deciding import Drain, TakeBack, may_drain
from farrier_agent.health.keeping import Judge
from farrier_agent.serving import peers
from farrier_agent.serving.house import House, OfReplica
from farrier_agent.status import Health, Replica

__all__ = ["BY", "Guard"]

log = logging.getLogger("farrier-agent")

BY = "farrier-agent (GPU health)"
"""Who asks for the drain of a replica whose GPU is unhealthy."""
PAUSE = 0.2
"""Seconds between two looks at whose moment it is."""


class Guard:
    """Does for the replicas of *house* what *judge* decides.

    *answers* says of a replica's name whether its engine answers, None where that is not known;
    *changed* is called when :attr:`held_back` did.
    """

    def __init__(
        self,
        config: AgentConfig,
        house: House,
        judge: Judge,
        answers: Callable[[str], bool | None],
        changed: Callable[[], None],
    ) -> None:
        self.held_back: dict[str, str] = {}
        """Why a drain that a verdict calls for was not begun, by replica."""
        self._config = config
        self._house = house
        self._judge = judge
        self._answers = answers
        self._changed = changed
        self._wanted: tuple[Drain | TakeBack, ...] = ()
        self._news = asyncio.Event()
        self._judged = False

    def relied_on(self, name: str) -> bool:
        """Another host may rely on the replica *name*: it serves, and is not about to drain."""
        one = self._house.replicas.get(name)
        unwell = any(isinstance(it, Drain) and it.replica == name for it in self._wanted)
        return self._judged and one is not None and one.life.takes_requests and not unwell

    def told(self, health: Health, replicas: Sequence[Replica]) -> None:
        """Here is what is concluded now."""
        self._judged = True
        self._wanted = self._judge.decide(health, replicas, at=time.time(), by=BY)
        for name in self.held_back.keys() - {one.replica for one in self._wanted}:
            self._hold_back(name, None)
        self._news.set()

    def told_nothing(self) -> None:
        """What is to be concluded is not known: nothing is done."""
        self._wanted = ()

    def overruled(self, name: str) -> None:
        """A person serves the replica *name*: what was wanted for it is wanted no more."""
        self._wanted = tuple(one for one in self._wanted if one.replica != name)
        self._hold_back(name, None)

    async def run(self) -> None:
        """Act until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            for intent in self._wanted:
                one = self._house.replicas.get(intent.replica)
                # it may take seconds until it is this one's turn
                if one is None or one.life.record is None or not self._still(intent):
                    continue
                if isinstance(intent, TakeBack):
                    if _is_ours(one.life.record):
                        await self._take_back(one, intent)
                elif one.life.record.engine_runs:
                    await self._drain(one, intent)

    def _still(self, intent: Drain | TakeBack) -> bool:
        """It is still wanted; the words for it may be others by now."""
        return any(type(it) is type(intent) and it.replica == intent.replica for it in self._wanted)

    async def _drain(self, one: OfReplica, intent: Drain) -> None:
        name, model = intent.replica, one.life.replica.model
        others = [peer for peer in self._config.peers if peer.model == model]
        if not peers.its_moment(self._config.host, others, time.time()):
            await asyncio.sleep(PAUSE)
            self._news.set()
            return
        answers = {**self._neighbours(name, model), **await peers.ask(others)}
        if not self._still(intent):
            return  # meanwhile it is over, or a person does not want it
        may, why = may_drain(answers, self._answers(name))
        self._hold_back(name, None if may else why)
        if not may:
            return
        event = DrainAsked(
            Asker(BY, "verdict", intent.why[:400]),
            settle=self._config.settle_seconds,
            seconds=self._config.drain_seconds,
            policy=self._config.drain_policy,
        )
        if await one.try_to_drain(event):
            self._judge.begun(name)
            self._wanted = tuple(it for it in self._wanted if it.replica != name)

    def _neighbours(self, name: str, model: str) -> dict[str, bool | None]:
        """Whether the host's other replicas of *model* take requests, and go on doing so."""
        return {
            f"{self._config.host}/{other}": self.relied_on(other)
            for other, it in self._house.replicas.items()
            if other != name and it.life.replica.model == model
        }

    async def _take_back(self, one: OfReplica, intent: TakeBack) -> None:
        step = await one.life.try_to_tell(ReadyAsked(Asker(BY, "verdict", intent.why)))
        if step is not None and not step.refused:
            self._judge.taken_back(intent.replica, time.time())
            self._wanted = tuple(it for it in self._wanted if it.replica != intent.replica)

    def _hold_back(self, name: str, why: str | None) -> None:
        if self.held_back.get(name) == why:
            return
        if why is None:
            del self.held_back[name]
        else:
            self.held_back[name] = why
            log.error(
                "replica %s: is not drained: %s",
                *(name, why),
                extra={"replica": name, "cause": "verdict"},
            )
        self._changed()


def _is_ours(record: Record) -> bool:
    """Nobody but the agent wants it drained, and systemd does not stop it."""
    drain = record.drain
    return not record.stopping and drain is not None and all(one.by == BY for one in drain.askers)
