"""Transformers behind Farrier's own small server (``roles/transformers/server``).

``/health`` is 200 once the model is loaded and made a token, and while the thread that computes is
alive. A long prompt is one step of the model, in which no token is counted, but each layer that was
computed is (``transformers:blocks_total``). A model of embeddings is warmed up with an embedding.
"""

from __future__ import annotations

from farrier_agent.engines.gauged import gauged
from farrier_agent.engines.generation import GENERATIONS, or_embedding

__all__ = ["ENGINE"]

ENGINE = gauged(
    "transformers",
    running="transformers:requests_running",
    waiting="transformers:requests_waiting",
    moving=(
        "transformers:generation_tokens_total",
        "transformers:prompt_tokens_total",
        "transformers:blocks_total",
    ),
    generations=tuple(map(or_embedding, GENERATIONS)),
    known="0.1.0",
    sigterm="stops listening and finishes them, and those that wait, for `--shutdown-timeout`"
    " seconds, which the unit sets; then it cuts them with an error and exits 0",
    counted="`transformers:requests_running`, `transformers:requests_waiting`",
    progress="tokens of prompts and answers, layers computed",
)
