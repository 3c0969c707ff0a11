"""Watches one engine's life: reads its load, asks a suspect one for a generation, says the verdict.

The rules are :mod:`farrier_agent.liveness`'s; here is what they need from outside.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from farrier_agent.engines import Engine, Load, Question
from farrier_agent.liveness import Patience, Sample, Verdict, Watch, look
from farrier_agent.loopback import Ask
from farrier_agent.warmup import generate

__all__ = ["Vitals", "read_load"]


async def read_load(
    ask: Ask, engine: Engine, *, deadline: float, told: Callable[[bytes], None] | None = None
) -> Load | None:
    """What the engine tells of its work within *deadline* seconds; None when it tells nothing.

    *told* is given the page that it told it with: nobody has to ask for that once more.
    """
    if engine.metrics is None or engine.load is None:
        return None
    answer = await ask(Question(engine.metrics), deadline)
    if answer.error is not None or answer.status != 200:
        return None
    if told is not None:
        told(answer.body)
    return engine.load(answer.body)


class Vitals:
    """The life of the engine of one replica. Look at it every few seconds while it serves.

    A generation that a suspect engine was asked for runs beside the looks; :meth:`close` ends it.
    """

    def __init__(
        self,
        ask: Ask,
        engine: Engine,
        model: str,
        patience: Patience,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._engine = engine
        self._model = model
        self._patience = patience
        self._clock = clock
        self._watch = Watch()
        self._probe: asyncio.Task[str | None] | None = None
        self._asked_at = 0.0

    async def look(
        self,
        run: str,
        *,
        sockets: int | None,
        moved: int | None = None,
        unread: int = 0,
        deadline: float = 3.0,
    ) -> Verdict:
        """The verdict on the engine in the *run* of its unit; see Sample for the others."""
        load = await read_load(self._ask, self._engine, deadline=deadline)
        return self.judge(run, load, sockets=sockets, moved=moved, unread=unread)

    def judge(
        self,
        run: str,
        load: Load | None,
        *,
        sockets: int | None,
        moved: int | None = None,
        unread: int = 0,
    ) -> Verdict:
        """The verdict by what the engine told of its *load* just now."""
        now = self._clock()
        sample = Sample(now, run, sockets, unread, moved, load, self._probing(now))
        self._watch, verdict = look(self._watch, sample, self._patience)
        if verdict.state == "suspect":
            self._begin(now)
        elif verdict.state != "wedged":
            self.close()
        return verdict

    def close(self) -> None:
        """End the generation that is waited for, if there is one."""
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None

    def _begin(self, now: float) -> None:
        if self._probe is None:
            # until it counts as wedged for certain, however late a look is
            seconds = self._patience.progress + self._patience.gap
            asked = generate(self._ask, self._engine, self._model, deadline=seconds)
            self._probe = asyncio.create_task(asked)
            self._asked_at = now

    def _probing(self, now: float) -> float | None:
        """For how many seconds a generation has been asked for in vain; None when it has not."""
        if self._probe is None:
            return None
        if self._probe.done() and self._probe.result() is None:
            self._probe = None
            return None
        return now - self._asked_at
