"""SGLang: ``/ready`` is 200 while it takes requests, 503 while it starts and once it drains.

Not ``/health``, which generates a token for each look at an engine without work. Its metrics are
there with ``--enable-metrics`` only. ``sglang:num_running_reqs`` is told every 40 steps and when
the engine becomes idle, a request's tokens are counted when it has ended; but
``sglang:realtime_tokens_total`` moves with every step, of a long prompt as well (0.5.23,
managers/scheduler_components/metrics_reporter.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from farrier_agent.engines.answer import Answer, Engine, Load, as_count, missing_model, refusal
from farrier_agent.engines.exposition import sums
from farrier_agent.engines.generation import GENERATIONS, MODELS, answers_200, models_named

__all__ = ["ENGINE"]

READY = "/ready"
RUNNING, WAITING = "sglang:num_running_reqs", "sglang:num_queue_reqs"
MOVING = "sglang:realtime_tokens_total"


def _judge(model: str, answers: Mapping[str, Answer]) -> str | None:
    return refusal(READY, answers[READY]) or missing_model(MODELS, answers[MODELS], model)


def _load(body: bytes) -> Load:
    found = sums(body, (RUNNING, WAITING, MOVING))
    return Load(as_count(found.get(RUNNING)), as_count(found.get(WAITING)), found.get(MOVING))


ENGINE = Engine(
    "sglang",
    (READY, MODELS),
    _judge,
    (answers_200(READY), models_named(), *GENERATIONS),
    metrics="/metrics",
    load=_load,
    known="0.5.23",
    sigterm="finishes them without a deadline, takes new ones meanwhile, looks every 5 s whether"
    " none is left; the unit's TimeoutStopSec= bounds it",
    counted="`sglang:num_running_reqs`, `sglang:num_queue_reqs` (with `--enable-metrics`)",
    progress="`sglang:realtime_tokens_total`",
)
