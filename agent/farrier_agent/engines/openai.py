"""Any OpenAI-compatible engine: the API has a list of models, and no word for health or load."""

from __future__ import annotations

from collections.abc import Mapping

from farrier_agent.engines.answer import Answer, Engine, missing_model
from farrier_agent.engines.generation import GENERATIONS, MODELS, models_named

__all__ = ["ENGINE"]


def _judge(model: str, answers: Mapping[str, Answer]) -> str | None:
    return missing_model(MODELS, answers[MODELS], model)


ENGINE = Engine(
    "openai", (MODELS,), _judge, (models_named(), *GENERATIONS), sigterm="whatever its program does"
)
