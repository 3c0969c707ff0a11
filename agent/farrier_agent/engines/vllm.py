"""vLLM: ``/health`` is 200 once its core runs, ``/v1/models`` has ``--served-model-name``.

Its metrics tell what runs and waits, as its core said at the end of its last step: a core that
hangs in the first step of a request never tells of that request. Work moves on when tokens are
generated; in the middle of a long prompt nothing is counted (0.32.0, v1/engine/async_llm.py: a step
without output has no statistics), but the share of its cache that is used grows with every step.
"""

from __future__ import annotations

from collections.abc import Mapping

from farrier_agent.engines.answer import Answer, Engine, Load, as_count, missing_model, refusal
from farrier_agent.engines.exposition import sums
from farrier_agent.engines.generation import GENERATIONS, MODELS, answers_200, models_named

__all__ = ["ENGINE"]

HEALTH = "/health"
RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
MOVING = (
    "vllm:generation_tokens_total",
    "vllm:prompt_tokens_total",
    "vllm:iteration_tokens_total_count",
    "vllm:kv_cache_usage_perc",
)


def _judge(model: str, answers: Mapping[str, Answer]) -> str | None:
    return refusal(HEALTH, answers[HEALTH]) or missing_model(MODELS, answers[MODELS], model)


def _load(body: bytes) -> Load:
    found = sums(body, (RUNNING, WAITING, *MOVING))
    moving = [found[name] for name in MOVING if name in found]
    return Load(
        running=as_count(found.get(RUNNING)),
        waiting=as_count(found.get(WAITING)),
        progress=sum(moving) if moving else None,
    )


ENGINE = Engine(
    "vllm",
    (HEALTH, MODELS),
    _judge,
    (answers_200(HEALTH), models_named(), *GENERATIONS),
    metrics="/metrics",
    load=_load,
    known="0.32.0",
    sigterm="finishes them for `--shutdown-timeout` seconds, which the unit sets, and answers new"
    " ones 500; without the flag it cuts them and hangs",
    counted="`vllm:num_requests_running`, `vllm:num_requests_waiting`",
    progress="tokens of prompts and answers, the use of its cache",
)
