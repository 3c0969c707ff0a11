"""Engines with a health page, a list of models, and two gauges: requests that run and wait."""

from __future__ import annotations

from collections.abc import Mapping

from farrier_agent.engines.answer import (
    Answer,
    Engine,
    Load,
    Step,
    as_count,
    missing_model,
    refusal,
)
from farrier_agent.engines.exposition import sums
from farrier_agent.engines.generation import GENERATIONS, MODELS, answers_200, models_named

__all__ = ["gauged"]


def gauged(
    name: str,
    *,
    health: str = "/health",
    metrics: str = "/metrics",
    running: str,
    waiting: str,
    moving: tuple[str, ...] = (),
    generations: tuple[Step, ...] = GENERATIONS,
    known: str = "",
    sigterm: str,
    counted: str,
    progress: str = "",
) -> Engine:
    """The adapter of an engine that is up when *health* is 200 and ``/v1/models`` names the model.

    *running* and *waiting* are its gauges on *metrics*. Its progress is the sum of *moving*, of
    those that the page has: absent without any.
    """

    def judge(model: str, answers: Mapping[str, Answer]) -> str | None:
        return refusal(health, answers[health]) or missing_model(MODELS, answers[MODELS], model)

    def load(body: bytes) -> Load:
        found = sums(body, (running, waiting, *moving))
        moved = [found[each] for each in moving if each in found]
        return Load(
            running=as_count(found.get(running)),
            waiting=as_count(found.get(waiting)),
            progress=sum(moved) if moved else None,
        )

    return Engine(
        name,
        (health, MODELS),
        judge,
        (answers_200(health), models_named(), *generations),
        metrics=metrics,
        load=load,
        known=known,
        sigterm=sigterm,
        counted=counted,
        progress=progress,
    )
