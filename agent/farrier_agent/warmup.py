"""Warms an engine up: from *it runs* to *it answers*, with real generations.

Health and the list of models are waited for, as loading takes minutes; then one short generation
and one stream to its end, and one short generation with each LoRA adapter. An engine that is
healthy but cannot generate (vLLM answers 200 on
``/health`` with a wedged core) does not pass. The first generation may compile kernels, so each
may take as long as the deadline leaves. One that answers each of them with an error of its own
(500, and not 503: that is *not yet*) is given up much sooner: no minute more will load it.

Who warms up ends it by cancelling the task, say when the unit ended meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from farrier_agent.engines import Answer, Engine, Step
from farrier_agent.loopback import Ask

__all__ = ["AGAIN", "Done", "WarmUp", "generate", "warm_up"]

AGAIN = (0.1, 1.0)
"""Seconds between two attempts at a step: the first two, and at most. Each wait is twice the last:
an engine that is there in a moment is not kept waiting, one that loads for minutes not pestered.
"""
LOOK_SECONDS = 5.0
"""Seconds that an answer may take that costs no generation."""
REFUSED_SECONDS = 60.0
"""How long an engine may answer generations with errors of its own before it is given up."""
_LATER = frozenset({501, 503})
NOT_THERE = frozenset({400, 404, 405, 501})
"""Statuses after which the step's next question is tried: the engine does not have that one."""


@dataclass(frozen=True)
class Done:
    """A step that was done, and the seconds from the start of the warm-up to it."""

    title: str
    seconds: float


@dataclass(frozen=True)
class WarmUp:
    """How warming up ended. ``why`` says what failed last, None when the engine is warm."""

    done: tuple[Done, ...]
    seconds: float
    why: str | None = None

    @property
    def warm(self) -> bool:
        """Every step was done."""
        return self.why is None


async def warm_up(
    ask: Ask,
    engine: Engine,
    model: str,
    *,
    deadline: float,
    adapters: Sequence[str] = (),
    refused_for: float = REFUSED_SECONDS,
    again: tuple[float, float] = AGAIN,
    say: Callable[[str], None] = lambda _: None,
) -> WarmUp:
    """Take the steps of *engine* in order, each until it is done, within *deadline* seconds.

    A generation that it answers with nothing but errors of its own is given up after
    *refused_for* seconds.

    Then one short generation with each of *adapters*: a name that is listed may still have no
    weights that can be used. *say* is told what it waits for, in words, whenever that changes.
    """
    begun = time.monotonic()
    end = begun + deadline
    done: list[Done] = []
    short = next(step for step in engine.steps if step.generates)
    steps = [(step, model, step.title) for step in engine.steps]
    steps += [(short, adapter, f"{short.title} of {adapter}") for adapter in adapters]
    for step, name, title in steps:
        told = None
        pause, longest = again
        since = time.monotonic()
        while (failed := await _attempt(ask, step, name, end)) is not None:
            why, now = failed.why, time.monotonic()
            if not failed.refused:
                since = now + pause
            if now + pause >= end:
                why = f"{title}: {why}; not warm within {deadline:g} s"
                return WarmUp(tuple(done), now - begun, why)
            if now - since >= refused_for:
                why = f"{title}: {why}; nothing else for {refused_for:g} s"
                return WarmUp(tuple(done), now - begun, why)
            if why != told:
                say(f"{title}: {why}")
                told = why
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
        done.append(Done(title, time.monotonic() - begun))
        say(f"{title}: done")
    return WarmUp(tuple(done), time.monotonic() - begun)


async def generate(ask: Ask, engine: Engine, model: str, *, deadline: float) -> str | None:
    """Ask for one short generation: why there was none within *deadline* seconds, or None.

    For an engine that is suspected to be wedged. One that answers that it has no generations (a
    model of embeddings) is no worse for it: None.
    """
    step = next(step for step in engine.steps if step.generates)
    end = time.monotonic() + deadline
    for question in step.questions(model):
        answer = await ask(question, max(0.1, end - time.monotonic()))
        if answer.error is not None or answer.status not in NOT_THERE:
            return step.judge(model, question.path, answer)
    return None


@dataclass(frozen=True)
class _Failed:
    """Why an attempt came to nothing. ``refused``: the engine itself says that it cannot."""

    why: str
    refused: bool


async def _attempt(ask: Ask, step: Step, model: str, end: float) -> _Failed | None:
    """How *step* failed, or None: it is done. The best answer of its questions counts."""
    first: _Failed | None = None
    for question in step.questions(model):
        left = max(0.1, end - time.monotonic())
        answer = await ask(question, left if step.generates else min(left, LOOK_SECONDS))
        why = step.judge(model, question.path, answer)
        if why is None:
            return None
        failed = _Failed(why, step.generates and _refuses(answer))
        if answer.error is not None or answer.status not in NOT_THERE:
            return failed
        first = first or failed
    return first


def _refuses(answer: Answer) -> bool:
    """The engine failed at it, rather than asked to wait."""
    return answer.error is None and answer.status >= 500 and answer.status not in _LATER
