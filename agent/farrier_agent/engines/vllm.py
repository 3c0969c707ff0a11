"""vLLM: ``/health`` is 200 once its core runs, ``/v1/models`` has ``--served-model-name``."""

from __future__ import annotations

from collections.abc import Mapping

from farrier_agent.engines.answer import Answer, Engine, missing_model, refusal

__all__ = ["ENGINE"]

HEALTH, MODELS = "/health", "/v1/models"


def _judge(model: str, answers: Mapping[str, Answer]) -> str | None:
    return refusal(HEALTH, answers[HEALTH]) or missing_model(MODELS, answers[MODELS], model)


ENGINE = Engine("vllm", (HEALTH, MODELS), _judge)
