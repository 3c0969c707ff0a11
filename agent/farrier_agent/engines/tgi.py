"""Hugging Face's text-generation-inference: ``/health`` is 200 once it generates.

It serves one model, under whatever name a request has; ``/info`` says which. Its batches are
counted before each step, of prompts and of answers, so ``tgi_batch_inference_count`` tells its
progress (backends/v3/src/backend.rs). The project is in maintenance mode.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from farrier_agent.engines.answer import (
    Answer,
    Engine,
    Load,
    Question,
    Step,
    as_count,
    parsed,
    refusal,
)
from farrier_agent.engines.exposition import sums
from farrier_agent.engines.generation import GENERATIONS, answers_200

__all__ = ["ENGINE"]

HEALTH, INFO = "/health", "/info"
RUNNING, WAITING = "tgi_batch_current_size", "tgi_queue_size"
MOVING = "tgi_batch_inference_count"


class _Info(msgspec.Struct):
    model_id: str


def _described(answer: Answer) -> str | None:
    refused = refusal(INFO, answer)
    if refused:
        return refused
    return None if parsed(answer.body, _Info) else f"{INFO} names no model"


def _judge(_model: str, answers: Mapping[str, Answer]) -> str | None:
    return refusal(HEALTH, answers[HEALTH]) or _described(answers[INFO])


def _load(body: bytes) -> Load:
    found = sums(body, (RUNNING, WAITING, MOVING))
    return Load(as_count(found.get(RUNNING)), as_count(found.get(WAITING)), found.get(MOVING))


_MODEL = Step("model", lambda _: (Question(INFO),), lambda _, __, answer: _described(answer))

ENGINE = Engine(
    "tgi",
    (HEALTH, INFO),
    _judge,
    (answers_200(HEALTH), _MODEL, *GENERATIONS),
    metrics="/metrics",
    load=_load,
    known="3.3.7",
    sigterm="stops listening and finishes them, for as long as its launcher waits for its server",
    counted="`tgi_batch_current_size`, `tgi_queue_size`",
    progress="`tgi_batch_inference_count`",
)
