"""Configurations of models as they are found, hostile ones too, and what engines know of them."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farrier.facts.roots import Roots
from farrier.facts.weights import Weights, WeightsFacts, parse
from farrier.preflight.judge import judge
from farrier.preflight.rules.models import adapter_paths
from farrier.spec import Model
from farrier.weights.adapter import Adapter, parse_adapter
from farrier.weights.config import ConfigError, ModelConfig
from farrier.weights.config import parse as read
from farrier.weights.known import CAPABILITY, llama_cpp_architectures, vllm
from farrier.weights.safetensors import problem
from tests.unit.ggufs import gguf
from tests.unit.preflight_hosts import QWEN, SPEC, bus, case
from tests.unit.preflight_rows.weights import AWQ, QWEN3, T4, serving

HEADER = b'{"a": {"dtype": "F32", "shape": [64], "data_offsets": [0, 256]}}'
TINY = len(HEADER).to_bytes(8, "little") + HEADER + bytes(256)
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}


def config(**said: Any) -> ModelConfig:
    return read(json.dumps(LLAMA | said).encode())


def test_what_a_configuration_says() -> None:
    assert config() == ModelConfig(("LlamaForCausalLM",), "llama", 32, 8, 8192)
    quantised = config(quantization_config={"quant_method": "AWQ", "bits": 4})
    assert quantised.quantisation == "awq"
    assert config(auto_map={"AutoModel": "code.py"}).remote_code
    nested = config(text_config={"num_attention_heads": 12, "max_position_embeddings": 100})
    assert (nested.heads, nested.kv_heads, nested.context) == (12, None, 100)
    assert config(kv_lora_rank=512).kv_heads is None


@pytest.mark.parametrize(
    ("said", "context"),
    [
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, 32768),
        ({"rope_scaling": {"type": "dynamic", "factor": 2}}, 16384),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 8192),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 8192),
        ({"rope_scaling": {"rope_type": "linear", "factor": None}}, 8192),
        ({"rope_parameters": {"full": {"rope_type": "linear", "factor": 2.0}}}, 16384),
        ({"model_max_length": 100_000}, 100_000),
        ({"n_positions": 1024}, 1024),
        ({"max_position_embeddings": None}, None),
        ({"max_position_embeddings": "8192"}, None),
        ({"model_type": "gemma3", "rope_scaling": {"rope_type": "linear", "factor": 8}}, 8192),
    ],
)
def test_how_long_a_context_may_be(said: dict[str, Any], context: int | None) -> None:
    assert config(**said).context == context


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [*LLAMA, "rope_scaling", "factor", "text_config", "quantization_config"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_configuration_breaks_the_reader(said: Any) -> None:
    text = json.dumps(said).encode()
    if not isinstance(said, dict):
        with pytest.raises(ConfigError, match="no JSON object"):
            read(text)
        return
    found = read(text)
    assert found.heads is None or found.heads > 0
    assert parse_adapter(text).rank is None
    judge(serving(found, args={"max-model-len": 4096}))


@pytest.mark.parametrize(
    "text", [b"", b"<html>", b"\xff", b"[" * 100_000, b"version https://git-lfs"]
)
def test_what_is_no_configuration(text: bytes) -> None:
    with pytest.raises(ConfigError, match="valid JSON"):
        read(text)


def test_what_the_engines_know() -> None:
    known = vllm("0.32.0")
    assert known is not None
    assert {"LlamaForCausalLM", "Qwen3ForCausalLM"} < known.architectures
    assert {"llama", "qwen3"} < known.model_types
    assert known.quantisations["fp8"] == 75
    assert min(known.quantisations.values()) >= 50
    assert max(known.quantisations.values()) <= max(CAPABILITY.values())
    before = vllm("0.31.0")  # which a fleet may be put back to
    assert before is not None
    assert known.architectures - before.architectures == {
        "ClefOmniForJointSchema",
        "EmbeddingGemma2Model",
        "ExaoneMoEForCausalLM",
        "MiniCPMV4_7ForConditionalGeneration",
    }
    assert before.model_types < known.model_types
    assert before.quantisations == known.quantisations
    assert vllm("9.9.9") is vllm("../x") is vllm("") is None
    assert {"llama", "qwen3", "gemma3"} < llama_cpp_architectures()


@pytest.mark.parametrize(
    "good",
    [
        serving(QWEN3),
        serving(QWEN3, args={"max-model-len": 40_960}),
        serving(QWEN3, args={"max-model-len": 99_999}, env={"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}),
        serving(QWEN3, args={"max-model-len": 99_999, "hf-overrides": "{}"}),
        serving(QWEN3, gpus=(0, 1, 2), args={"pipeline-parallel-size": 3}),
        serving(replace(QWEN3, heads=64, kv_heads=2), gpus=tuple(range(8))),
        serving(AWQ, pci=bus(8, T4, switches=0)),
        serving(AWQ, args={"quantization": "awq_marlin"}),
        serving(AWQ, args={"quantization": "moe_wna16"}),
        serving(ModelConfig()),
        serving("is not valid JSON", source="path:/srv/models/other"),
    ],
)  # fmt: skip
def test_what_can_start_gives_no_reason(good: Any) -> None:
    codes = {one.code for one in judge(good).reasons}
    assert not {code for code in codes if code.startswith(("model-a", "model-h", "model-q"))}
    assert "model-context" not in codes


def test_a_version_that_was_not_looked_up_is_not_judged() -> None:
    odd = serving(replace(QWEN3, architectures=("FooForCausalLM",), quantisation="aqlm"))
    other = replace(odd.wanted.programs[0], name="vllm 9.9.9")
    judged = judge(replace(odd, wanted=replace(odd.wanted, programs=(other,))))
    assert judged.state == "ready"


PLAIN = {"r": 8, "lora_alpha": 16, "peft_type": "LORA", "bias": "none"}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, Adapter(8)),
        ({"base_model_name_or_path": "Qwen/Qwen3-8B"}, Adapter(8, "Qwen/Qwen3-8B")),
        ({"rank_pattern": {"q_proj": 64, "v_proj": 4}}, Adapter(64)),
        ({"init_lora_weights": "gaussian", "modules_to_save": ["score"]}, Adapter(8)),
        ({"peft_type": "IA3"}, Adapter(8, "", "is no LoRA but 'IA3'")),
        ({"lora_alpha": None}, Adapter(8, "", "has no r or no lora_alpha")),
        ({"use_dora": True}, Adapter(8, "", "uses DoRA")),
        ({"bias": "all"}, Adapter(8, "", "uses a bias ('all')")),
        (
            {"modules_to_save": ["embed_tokens"]},
            Adapter(8, "", "brings whole modules besides (modules_to_save)"),
        ),
        (
            {"init_lora_weights": "pissa"},
            Adapter(
                8, "", "uses init_lora_weights 'pissa', which changes the weights of its model"
            ),
        ),
    ],
)
def test_what_an_adapter_says(said: dict[str, Any], expected: Adapter) -> None:
    """As vLLM 0.32.0 has it (lora/peft_helper.py, PEFTHelper.validate_legal)."""
    assert parse_adapter(json.dumps(PLAIN | said).encode()) == expected


def test_where_adapters_are_said_to_be() -> None:
    def paths(said: Any, **fields: Any) -> tuple[str, ...]:
        return adapter_paths(replace(QWEN, args={"lora-modules": said}, **fields))

    assert paths("law=/srv/a") == paths('{"name": "law", "path": "/srv/a"}') == ("/srv/a",)
    assert paths("law=org/name") == paths("{") == paths("[1]") == paths(3) == paths("law") == ()
    assert paths("law=/srv/a", engine="custom") == ()
    assert adapter_paths(replace(QWEN, lora={"a": "path:/srv/a", "b": "path:/srv/b"})) == (
        *("/srv/a", "/srv/b"),
    )
    weights = WeightsFacts(adapters={"/srv/adapters/law": Adapter(16)})
    model = replace(QWEN, args={"enable-lora": True, "lora-modules": "law=/srv/adapters/law"})
    assert judge(case(spec=replace(SPEC, models=(model,)), weights=weights)).state == "ready"


@pytest.mark.parametrize("python", [True, False], ids=["python", "no python"])
def test_the_script_reads_a_real_disk(tmp_path: Path, python: bool) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "adapter_config.json").write_text('{"r": 64, "lora_alpha": 16}')
    whole, cut, page = (tmp_path / name for name in ("w.gguf", "c.gguf", "p.gguf"))
    whole.write_bytes(gguf())
    cut.write_bytes(gguf()[:-100])
    page.write_text("<html>")
    command = Weights().command(
        Roots(),
        [str(tmp_path / "m"), str(tmp_path / "none")],
        [str(tmp_path / "a b")],
        [*map(str, (whole, cut, page)), str(tmp_path / "none.gguf")],
    )
    if not python:
        command = command.replace("has python3", "false")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    found = parse(done.stdout.splitlines())
    assert found.configs == {str(tmp_path / "m"): config()}
    assert found.adapters == {str(tmp_path / "a b"): Adapter(64)}
    assert found.ggufs[str(whole)].problem == ""
    head = found.ggufs[str(whole)].head
    assert head is not None
    assert (head.architecture, head.context) == ("llama", 2048)
    assert found.ggufs[str(cut)].problem.startswith("is cut short")
    assert "no GGUF file" in found.ggufs[str(page)].problem
    assert found.ggufs[str(tmp_path / "none.gguf")].size is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\x02", "is cut short: 1 of at least 10 bytes"),
        (b"\x02" + bytes(7) + b"{}", None),
        (TINY, None),
        (TINY[:-1], f"is cut short: {len(TINY) - 1} of {len(TINY)} bytes"),
        (TINY[:30], f"is cut short: 30 of at least {8 + len(HEADER)} bytes"),
        (b"<html><body>no</body></html>", "is no safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of git-lfs"),
        (b"\x02" + bytes(7) + b"[]", "its header is damaged"),
        (b"\x0b" + bytes(7) + b'{"a": null', "is cut short: 18 of at least 19 bytes"),
    ],
)
def test_safetensors_that_no_engine_could_load(
    tmp_path: Path, data: bytes, words: str | None
) -> None:
    (tmp_path / "m o").mkdir()
    file = tmp_path / "m o" / "model.safetensors"
    file.write_bytes(data)
    command = Weights().command(Roots(), [str(tmp_path / "m o")])
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    found = parse(done.stdout.splitlines()).shards
    assert found.keys() == ({str(file)} if words else set())
    assert (words or "") in found.get(str(file), "")


@given(st.binary(max_size=200))
def test_no_header_breaks_its_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.safetensors"
    for begin in (b"", len(data).to_bytes(8, "little")):
        file.write_bytes(begin + data)
        assert isinstance(problem(str(file)), str | None)


def test_a_configuration_that_is_no_file_or_empty(tmp_path: Path) -> None:
    for name in ("folder", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "folder" / "config.json").mkdir()
    (tmp_path / "empty" / "config.json").touch()
    command = Weights().command(Roots(), [str(tmp_path / "folder"), str(tmp_path / "empty")])
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    found = parse(done.stdout.splitlines()).configs
    assert list(found.values()) == ["is a directory", "is empty"]


@given(
    st.lists(st.text(max_size=30) | st.sampled_from(["config ! /a", "read e30= /a", "gguf 1 /a"]))
)
def test_no_answer_of_a_host_breaks_the_parser(lines: list[str]) -> None:
    assert isinstance(parse(lines), WeightsFacts)


def test_a_model_of_triton_is_a_repository() -> None:
    from farrier.preflight.basics import ModelFound

    model = Model("t", engine="triton", source="path:/srv/t", gpus=[0], command=["/x"])
    there = {"models": {"/srv/t": ModelFound("no-config.json")}}
    assert judge(case(spec=replace(SPEC, models=(model,)), basics=there)).state == "ready"
