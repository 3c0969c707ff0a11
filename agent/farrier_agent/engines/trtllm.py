"""TensorRT-LLM's ``trtllm-serve``: ``/health`` is 200 once it runs.

``/metrics`` is no page for Prometheus but a queue of JSON that every reader empties. The page is at
``/prometheus/metrics``, with ``return_perf_metrics`` only, and how many requests run is on it in
newer versions than 1.2.1. Its tokens are counted when a request has ended: nothing on it tells an
engine that works on long answers from one that hangs, so no progress is read from it.
"""

from __future__ import annotations

from collections.abc import Mapping

from farrier_agent.engines.answer import Answer, Engine, Load, as_count, missing_model, refusal
from farrier_agent.engines.exposition import sums
from farrier_agent.engines.generation import GENERATIONS, MODELS, answers_200, models_named

__all__ = ["ENGINE"]

HEALTH = "/health"
RUNNING, WAITING = "trtllm_num_requests_running", "trtllm_num_requests_waiting"


def _judge(model: str, answers: Mapping[str, Answer]) -> str | None:
    return refusal(HEALTH, answers[HEALTH]) or missing_model(MODELS, answers[MODELS], model)


def _load(body: bytes) -> Load:
    found = sums(body, (RUNNING, WAITING))
    return Load(as_count(found.get(RUNNING)), as_count(found.get(WAITING)))


ENGINE = Engine(
    "trtllm",
    (HEALTH, MODELS),
    _judge,
    (answers_200(HEALTH), models_named(), *GENERATIONS),
    metrics="/prometheus/metrics",
    load=_load,
    known="1.2.1",
    sigterm="closes its listener and waits for its connections, without a deadline (uvicorn's)",
    counted="`trtllm_num_requests_running`, `trtllm_num_requests_waiting`, where the version has"
    " them and `return_perf_metrics` is set",
)
