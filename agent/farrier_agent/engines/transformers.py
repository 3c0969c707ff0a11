"""Transformers behind a small server of Farrier's own, for models that no engine takes.

The server is not there yet; this is what it will have to answer: ``/health`` is 200 once the model
is loaded, and its metrics have the requests that run and wait. A prompt of any length is read in
one step, in which nothing moves, so no progress is read from it.
"""

from __future__ import annotations

from collections.abc import Mapping

from farrier_agent.engines.answer import Answer, Engine, Load, as_count, missing_model, refusal
from farrier_agent.engines.exposition import sums
from farrier_agent.engines.generation import GENERATIONS, MODELS, answers_200, models_named

__all__ = ["ENGINE"]

HEALTH = "/health"
RUNNING, WAITING = "transformers:requests_running", "transformers:requests_waiting"


def _judge(model: str, answers: Mapping[str, Answer]) -> str | None:
    return refusal(HEALTH, answers[HEALTH]) or missing_model(MODELS, answers[MODELS], model)


def _load(body: bytes) -> Load:
    found = sums(body, (RUNNING, WAITING))
    return Load(as_count(found.get(RUNNING)), as_count(found.get(WAITING)))


ENGINE = Engine(
    "transformers",
    (HEALTH, MODELS),
    _judge,
    (answers_200(HEALTH), models_named(), *GENERATIONS),
    metrics="/metrics",
    load=_load,
    sigterm="stops listening and finishes them",
    counted="`transformers:requests_running`, `transformers:requests_waiting`",
)
