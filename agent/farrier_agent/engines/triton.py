"""Triton Inference Server behind its own OpenAI frontend (its repository's python/openai).

``tritonserver`` alone has no ``/v1``, and its metrics are on a port of their own; the frontend has
both on one, and ``/health/ready``, which is 400 while the server is not ready. The server tells how
many requests wait (``nv_inference_pending_request_count``) and nothing of those that run; what it
counts, it counts when a request has ended, which is no progress.
"""

from __future__ import annotations

from collections.abc import Mapping

from farrier_agent.engines.answer import Answer, Engine, Load, as_count, missing_model, refusal
from farrier_agent.engines.exposition import sums
from farrier_agent.engines.generation import GENERATIONS, MODELS, answers_200, models_named

__all__ = ["ENGINE"]

READY = "/health/ready"
WAITING = "nv_inference_pending_request_count"


def _judge(model: str, answers: Mapping[str, Answer]) -> str | None:
    return refusal(READY, answers[READY]) or missing_model(MODELS, answers[MODELS], model)


def _load(body: bytes) -> Load:
    return Load(waiting=as_count(sums(body, (WAITING,)).get(WAITING)))


ENGINE = Engine(
    "triton",
    (READY, MODELS),
    _judge,
    (answers_200(READY), models_named(), *GENERATIONS),
    metrics="/metrics",
    load=_load,
    known="e1db8a603",
    sigterm="`tritonserver` refuses new connections and waits 30 s (`--exit-timeout-secs`) until"
    " none is left, idle ones counted; of its OpenAI frontend it is not known",
    counted="`nv_inference_pending_request_count` for those that wait, nothing for those that run",
)
