"""llama.cpp's llama-server: ``/health`` is 503 while the model loads, and 200 then.

Its metrics are there with ``--metrics`` only, and it answers them between two steps: in a long one
it answers nothing. Numbers are printed with six digits (tools/server/server-task.cpp), so from ten
millions on a counter stands still for many steps of work, and no progress is read from it any more.
"""

from __future__ import annotations

from collections.abc import Mapping

from farrier_agent.engines.answer import Answer, Engine, Load, as_count, missing_model, refusal
from farrier_agent.engines.exposition import sums
from farrier_agent.engines.generation import GENERATIONS, MODELS, answers_200, models_named

__all__ = ["ENGINE"]

HEALTH = "/health"
RUNNING, WAITING = "llamacpp:requests_processing", "llamacpp:requests_deferred"
MOVING = "llamacpp:n_decode_total"
ROUNDED = 10_000_000
"""From here on it is printed in steps of 100: seconds, for a model on a CPU."""


def _judge(model: str, answers: Mapping[str, Answer]) -> str | None:
    return refusal(HEALTH, answers[HEALTH]) or missing_model(MODELS, answers[MODELS], model)


def _load(body: bytes) -> Load:
    found = sums(body, (RUNNING, WAITING, MOVING))
    moving = found.get(MOVING)
    return Load(
        as_count(found.get(RUNNING)),
        as_count(found.get(WAITING)),
        moving if moving is not None and moving < ROUNDED else None,
    )


ENGINE = Engine(
    "llama_cpp",
    (HEALTH, MODELS),
    _judge,
    (answers_200(HEALTH), models_named(), *GENERATIONS),
    metrics="/metrics",
    load=_load,
    known="of llama-cpp-python 0.3.36",
    sigterm="cuts them, stops listening, and does not end by itself where there were any: systemd's"
    " SIGKILL at the end of TimeoutStopSec= does it",
    counted="`llamacpp:requests_processing`, `llamacpp:requests_deferred` (with `--metrics`)",
    progress="`llamacpp:n_decode_total`, up to ten millions",
)
