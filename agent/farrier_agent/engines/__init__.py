"""The engines that the agent can ask whether they serve. One module per engine."""

from __future__ import annotations

from farrier_agent.engines import (
    llama_cpp,
    ollama,
    openai,
    sglang,
    tgi,
    transformers,
    triton,
    trtllm,
    vllm,
)
from farrier_agent.engines.answer import Answer, Engine, Load, Question, Step

__all__ = ["ENGINES", "Answer", "Engine", "Load", "Question", "Step"]

ENGINES = {
    engine.name: engine
    for engine in (
        openai.ENGINE,
        vllm.ENGINE,
        sglang.ENGINE,
        trtllm.ENGINE,
        llama_cpp.ENGINE,
        ollama.ENGINE,
        ollama.ON_CPU,
        transformers.ENGINE,
        tgi.ENGINE,
        triton.ENGINE,
    )
}
"""Every adapter by the name that ``agent.toml`` uses."""
