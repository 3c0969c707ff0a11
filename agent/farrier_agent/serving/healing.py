"""The health of one replica: a wedged engine is closed, explained, restarted; but not for ever.

``/health`` answers 200 on a wedged engine, so it is judged by its progress (:mod:`.liveness`). The
gate closes first: whoever comes then is told to come again, and is not swallowed. Then evidence is
kept, which the restart destroys. What was done is on disk before it is done, so that an agent that
dies in between is followed by one that carries on, and none restarts an engine more often than
:mod:`.breaker` allows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from farrier_agent.breaker import GaveUp, History, Limits, Wait, decide, restarted
from farrier_agent.config import AgentConfig
from farrier_agent.draining.events import DrainAsked, ReadyAsked
from farrier_agent.draining.record import Asker, Phase, Record
from farrier_agent.durable import replace
from farrier_agent.engines import ENGINES, Load
from farrier_agent.liveness import Patience, Verdict
from farrier_agent.loopback import asker
from farrier_agent.movement import Movement
from farrier_agent.serving.acting import ActError, Actor
from farrier_agent.serving.counting import Counter
from farrier_agent.serving.life import Life
from farrier_agent.serving.worker import Worker
from farrier_agent.vitals import Vitals

__all__ = ["BY", "Health"]

log = logging.getLogger("farrier-agent")

BY = "farrier-agent (health)"
"""Who asks for the drain of a wedged replica."""
LIMITS = Limits()


_history = msgspec.json.Decoder(History)


class Health:
    """The health of *life*. *every* is seconds between two looks.

    One is not restarted while *hands_off* says so of its record: a rollout is at work on it.
    """

    def __init__(
        self,
        life: Life,
        config: AgentConfig,
        counter: Counter,
        actor: Actor,
        every: float,
        *,
        hands_off: Callable[[Record], bool] = lambda _record: False,
    ) -> None:
        self.verdict: Verdict | None = None
        """The last one; None while the engine is not judged."""
        self._life = life
        self._counter = counter
        self._actor = actor
        self._worker = Worker(f"health of {life.name}")
        self._every = every
        self._hands_off = hands_off
        self._path = Path(config.records_dir) / f"{life.name}.health.json"
        self.history = self._read()
        replica = life.replica
        seconds = config.wedged_seconds
        patience = Patience(
            progress=seconds,
            probe=min(8.0, seconds / 3),
            silence=config.silent_seconds,
            gap=max(15.0, 3 * every),
        )
        self._vitals = Vitals(asker(replica.port), ENGINES[replica.engine], replica.model, patience)
        self._movement = Movement()
        self._run: str | None = None
        self._looked = 0.0
        self._healing: asyncio.Task[None] | None = None

    @property
    def restarts(self) -> int:
        """How often the engine was restarted for its health within the last hour."""
        now = time.time()
        return sum(1 for at in self.history.restarts if now - at < LIMITS.within)

    async def look(self, load: Load | None) -> Verdict | None:
        """Judge the engine by its *load* and its sockets, and heal it. None: it is not judged."""
        record = self._life.record
        if record is None or not record.engine_runs or record.invocation_id is None:
            self.verdict = None
            return None
        judged = record.phase in {Phase.READY, Phase.DRAINING}
        if not judged or record.invocation_id != self._run:
            self.verdict = None
        if judged and (self.verdict is None or self._is_time()):
            self._run, self._looked = record.invocation_id, time.monotonic()
            self.verdict = await self._judge(record.invocation_id, load)
        await self._heal(record)
        return self.verdict

    async def _judge(self, run: str, load: Load | None) -> Verdict:
        moved = await self._worker.do(lambda: self._counter.move(self._movement))
        self._movement = moved or Movement()
        if moved is None:
            return self._vitals.judge(run, load, sockets=None)
        return self._vitals.judge(
            run, load, sockets=moved.sockets, moved=moved.moved, unread=moved.unread
        )

    async def close(self) -> None:
        """End what waits for the engine. A restart that systemd was asked for goes on."""
        self._vitals.close()
        if self._healing:
            self._healing.cancel()
            await asyncio.gather(self._healing, return_exceptions=True)

    def _is_time(self) -> bool:
        return time.monotonic() - self._looked >= self._every * 0.9

    async def _heal(self, record: Record) -> None:
        verdict = self.verdict
        if record.phase is Phase.READY and verdict is not None and verdict.state == "wedged":
            log.error(
                "replica %s: wedged: %s", self._life.name, verdict.why, extra=self._extra("wedged")
            )
            await self._close(f"wedged: {verdict.why}")
            record = self._life.record or record
        if not self._is_ours(record) or (self._healing and not self._healing.done()):
            return
        if not self._actor.can_ask(self._life.name):
            return  # else the attempt would count, and nothing would have been tried
        match decide(self.history, time.time(), LIMITS):
            case Wait():
                return
            case GaveUp(why):
                await self._give_up(record, why)
            case _:
                self._healing = asyncio.get_running_loop().create_task(self._restart(record))

    def _is_ours(self, record: Record) -> bool:
        """It was closed for its health, nobody stops it, and nobody gave it up."""
        drain = record.drain
        return (
            record.phase is Phase.DRAINED
            and drain is not None
            and any(asker.by == BY for asker in drain.askers)
            and not record.stopping
            and not self._hands_off(record)
            and record.invocation_id != self.history.given_up
        )

    async def _give_up(self, record: Record, why: str) -> None:
        if not await self._keep(
            msgspec.structs.replace(self.history, given_up=record.invocation_id)
        ):
            return
        log.error("replica %s: %s", self._life.name, why, extra=self._extra("gave up"))
        await self._close(why)

    async def _close(self, why: str) -> None:
        """Close its gate at once; what is in flight there is counted as cut."""
        moved = self._movement.sockets
        asked = DrainAsked(
            Asker(BY, "verdict", why), settle=0, seconds=0, policy="force", in_flight=moved
        )
        await self._life.try_to_tell(asked)

    async def _restart(self, record: Record) -> None:
        name = self._life.name
        why = record.drain.askers[-1].reason if record.drain else record.reason
        try:
            bundle = await self._actor.evidence(name, why)
            log.warning("replica %s: evidence: %s", name, bundle, extra=self._extra("evidence"))
        except ActError as error:
            log.error("replica %s: no evidence: %s", name, error, extra=self._extra("evidence"))
        if not await self._keep(restarted(self.history, time.time(), LIMITS)):
            return
        try:
            unit = await self._actor.restart(name)
        except ActError as error:
            log.error("replica %s: not restarted: %s", name, error, extra=self._extra("restart"))
            return
        now = self._life.record
        if now is not None and now.drain and all(one.by == BY for one in now.drain.askers):
            # an orderly stop ends a drain, but the engine may have crashed before it
            await self._life.try_to_tell(ReadyAsked(Asker(BY, "verdict", "it was restarted")))
        log.warning(
            "replica %s: restarted for its health (%d within the last hour): %s is %s",
            *(name, self.restarts, unit.name, unit.active_state),
            extra=self._extra("restart"),
        )

    async def _keep(self, history: History) -> bool:
        """Write *history*; without it on the disk nothing is restarted."""
        try:
            data = msgspec.json.encode(history)
            await self._worker.do(lambda: replace(self._path, data))
        except OSError as error:
            log.error(
                "replica %s: not restarted, for %s cannot be written: %s",
                *(self._life.name, self._path, error.strerror),
                extra=self._extra("restart"),
            )
            return False
        self.history = history
        return True

    def _read(self) -> History:
        try:
            return _history.decode(self._path.read_bytes())
        except FileNotFoundError:
            return History()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning(
                "replica %s: its restarts for health are forgotten: %s: %s",
                *(self._life.name, self._path, error),
                extra=self._extra("restart"),
            )
            return History()

    def _extra(self, cause: str) -> dict[str, str]:
        return {"replica": self._life.name, "cause": cause}
