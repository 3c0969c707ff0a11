"""vLLM: ``/health`` is 200 once its core runs, ``/v1/models`` has ``--served-model-name``.

Its metrics tell what runs and waits, as its core said at the end of its last step: a core that
hangs in the first step of a request never tells of that request. Work moves on when tokens are
generated; in the middle of a long prompt nothing is counted (0.32.0, v1/engine/async_llm.py: a step
without output has no statistics), but the share of its cache that is used grows with every step.

It is warm when it has given logprobs, too: the first request for them, and no other, makes it
compile (0.32.0, v1/sample/ops/logprobs.py), and meanwhile it does nothing else. On CPUs that is
C++: 111 s on two busy cores, and without a compiler its end.
"""

from __future__ import annotations

from farrier_agent.engines.gauged import gauged
from farrier_agent.engines.generation import GENERATIONS, LOGPROBS

__all__ = ["ENGINE"]

ENGINE = gauged(
    "vllm",
    running="vllm:num_requests_running",
    waiting="vllm:num_requests_waiting",
    moving=(
        "vllm:generation_tokens_total",
        "vllm:prompt_tokens_total",
        "vllm:iteration_tokens_total_count",
        "vllm:kv_cache_usage_perc",
    ),
    generations=(*GENERATIONS, LOGPROBS),
    known="0.32.0",
    sigterm="finishes them for `--shutdown-timeout` seconds, which the unit sets, and answers new"
    " ones 500; without the flag it cuts them and hangs",
    counted="`vllm:num_requests_running`, `vllm:num_requests_waiting`",
    progress="tokens of prompts and answers, the use of its cache",
)
