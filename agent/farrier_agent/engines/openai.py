"""Any OpenAI-compatible engine: the API has a list of models, and no word for health."""

from __future__ import annotations

from collections.abc import Mapping

from farrier_agent.engines.answer import Answer, Engine, missing_model

__all__ = ["ENGINE"]

MODELS = "/v1/models"


def _judge(model: str, answers: Mapping[str, Answer]) -> str | None:
    return missing_model(MODELS, answers[MODELS], model)


ENGINE = Engine("openai", (MODELS,), _judge)
