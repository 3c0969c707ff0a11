"""Models that their engine could not start with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from farrier.facts.weights import GgufFound, WeightsFacts
from farrier.preflight.found import Case
from farrier.preflight.wanted import Program
from farrier.spec import Model
from farrier.weights.config import ModelConfig
from farrier.weights.gguf import Gguf
from tests.unit.preflight_hosts import HEALTHY, QWEN, SPEC, bus, case
from tests.unit.preflight_rows.parts import Row, copied

QWEN3 = ModelConfig(("Qwen3ForCausalLM",), "qwen3", heads=32, kv_heads=8, context=40_960)
"""As of Qwen3-8B."""
COMMAND = [
    "/opt/llama.cpp/bin/llama-server",
    "--model",
    "{path}",
    "--metrics",
    "--host={host}:{port}",
]
GGUF = Model(
    "small", engine="llama_cpp", source="path:/srv/models/small.gguf", gpus=[0], command=COMMAND
)
T4 = 0x1EB8
V100 = 0x1DB6


def serving(config: ModelConfig | str, pci: Any = None, **fields: Any) -> Case:
    """A host whose model has *config*, and *fields* in the inventory."""
    spec = replace(SPEC, models=(replace(QWEN, **fields),))
    found = WeightsFacts(configs={"/srv/models/qwen": config})
    return case(spec=spec, weights=found, **({"pci": pci} if pci else {}))


def gguf(found: GgufFound, models: Sequence[Model] = (GGUF,)) -> Case:
    """A host with that file."""
    facts = WeightsFacts(ggufs={"/srv/models/small.gguf": found})
    return case(spec=replace(SPEC, models=tuple(models)), weights=facts)


COPIED = (
    "ssh admin@192.0.2.11 'sudo mkdir -p /srv/models && sudo tee /srv/models/small.gguf >"
    " /dev/null' < small.gguf"
)
AWQ = replace(QWEN3, quantisation="awq")

OLLAMA = Program("ollama 0.33.0", "/opt/farrier/ollama/0.33.0-None", 6000, pinned=False)
TRTLLM = Program("trtllm 1.2.1", "/opt/farrier/trtllm/1.2.1-01234567", 20_000, locked=False)
SGLANG = Program("sglang 0.5.23", "/opt/farrier/sglang/0.5.23-0", 16_000, pythons=("3.11", "3.12"))

ROWS = {
    "an engine that could be anything": Row(
        Case(replace(case().wanted, programs=(OLLAMA,)), HEALTHY),
        "refused",
        "engine-unpinned",
        'ollama_sha256 = "…"',
        "inventory",
    ),
    "an engine whose wheels are not locked": Row(
        Case(replace(case().wanted, programs=(TRTLLM,)), HEALTHY),
        "refused",
        "engine-unlocked",
        'trtllm_locks = "…"',
        "inventory",
    ),
    "an engine whose wheels are locked for other Pythons": Row(
        Case(
            replace(case().wanted, programs=(SGLANG,)),
            replace(HEALTHY, basics=replace(HEALTHY.basics, system="debian 13")),
        ),
        "refused",
        "engine-python",
        'sglang_locks = "…"',
        "inventory",
    ),
    "heads that three of SGLang's GPUs cannot share": Row(
        serving(QWEN3, gpus=(0, 1, 2), engine="sglang", args={}),
        "refused",
        "model-heads",
        "models: qwen takes tp-size 1 or 2 or 4",
        "inventory",
    ),
    "a context that SGLang's model has not": Row(
        serving(QWEN3, engine="sglang", args={"context-length": 65_536}),
        "refused",
        "model-context",
        'models: qwen args={"context-length": 40960}',
        "inventory",
    ),
    "a model that nobody knows": Row(
        serving(replace(QWEN3, architectures=("FooForCausalLM",), model_type="foo")),
        "refused",
        "model-architecture",
        'models: qwen needs engine="custom" with a program that serves FooForCausalLM, or a'
        " vllm_version that does",
        "inventory",
    ),
    "a model that only Transformers knows": Row(
        serving(ModelConfig(("SwitchTransformersModel",), "switch_transformers")),
        "attention",
        "model-architecture",
        'models: qwen needs engine="custom" with a program that serves SwitchTransformersModel, or'
        " a vllm_version that does",
        "inventory",
    ),
    "heads that three GPUs cannot share": Row(
        serving(QWEN3, gpus=(0, 1, 2)),
        "refused",
        "model-heads",
        "models: qwen takes tensor-parallel-size 1 or 2 or 4",
        "inventory",
    ),
    "keys and values that six GPUs cannot share": Row(
        serving(replace(QWEN3, heads=24, kv_heads=8), gpus=(0, 1, 2, 3, 4, 5)),
        "refused",
        "model-heads",
        "models: qwen takes tensor-parallel-size 1 or 2 or 4 or 8",
        "inventory",
    ),
    "a context longer than the model's": Row(
        serving(QWEN3, args={"max-model-len": 131_072}),
        "refused",
        "model-context",
        'models: qwen args={"max-model-len": 40960}',
        "inventory",
    ),
    "a quantisation that the engine does not know": Row(
        serving(replace(QWEN3, quantisation="aqlm")),
        "refused",
        "model-quantisation",
        'models: qwen needs source= of weights in one of awq, fp8, gptq, mxfp4, or engine="custom"',
        "inventory",
    ),
    "mxfp4 on Turing": Row(
        serving(replace(QWEN3, quantisation="mxfp4"), pci=bus(8, T4, switches=0)),
        "refused",
        "model-quantisation-gpu",
        "models: qwen needs GPUs of compute capability 8.0 or newer, or other weights",
        "inventory",
    ),
    "a flag that contradicts the weights": Row(
        serving(AWQ, args={"quantization": "gptq_marlin"}),
        "refused",
        "model-quantisation-flag",
        "models: qwen without 'quantization' in args, which is read from config.json",
        "inventory",
    ),
    "an error page instead of a configuration": Row(
        serving("is not valid JSON"),
        "refused",
        "model-config-broken",
        "ssh admin@192.0.2.11 head -c 200 /srv/models/qwen/config.json",
        "operator",
    ),
    "a configuration that is a directory": Row(
        serving("is a directory"),
        "refused",
        "model-config-broken",
        "ssh admin@192.0.2.11 ls -ld /srv/models/qwen/config.json",
        "operator",
    ),
    "weights cut short": Row(
        case(
            weights=WeightsFacts(
                shards={"/srv/models/qwen/a.safetensors": "is cut short: 100 of 5000 bytes"}
            )
        ),
        "refused",
        "model-incomplete",
        copied("qwen"),
        "operator",
    ),
    "no GGUF": Row(
        gguf(GgufFound()),
        "refused",
        "model-missing",
        COPIED,
        "operator",
    ),
    "a GGUF cut short": Row(
        gguf(GgufFound(1000, problem="is cut short: 1000 of at least 5000 bytes")),
        "refused",
        "gguf-broken",
        COPIED,
        "operator",
    ),
    "a GGUF of an architecture that is new": Row(
        gguf(GgufFound(1000, Gguf(3, "foo"))),
        "attention",
        "gguf-architecture",
        "ssh admin@192.0.2.11 /opt/llama.cpp/bin/llama-server --version",
        "operator",
    ),
}
