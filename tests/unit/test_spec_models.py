"""What can be wrong with a model, and that each mistake is named with its field and a way out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pytest

from farrier.spec import OPEN_ACCESS, HubSource, Model, PathSource, read_host
from farrier.spec.check_layout import clashes, draft_of

ONE_UNIT = "a replica is one unit"
SPAN = "it comes from the model's field hosts"
BAD_LORA: list[tuple[Any, str, str]] = [
    (["law"], "lora", "must be a dict such as {'law':"),
    ({"l w": "path:/a"}, "lora", "other characters"),
    ({"a": "path:/a"}, "lora.a", "model's own name"),
    ({"law": "/a"}, "lora.law", "write path:"),
    ({"law": "hf:o/n@v1"}, "lora.law", "directory on the host"),
    ({"law": "path:/a.gguf"}, "lora.law", "directory on the host"),
]
GOOD: dict[str, Any] = {"source": "path:/srv/models/tiny", "gpus": [0]}


def problems(*models: Any, **data: Any) -> dict[str, str]:
    """Field -> message of a GPU host that serves *models*."""
    data = {"models": list(models), "open_access": OPEN_ACCESS} | data
    _, found = read_host("gpu01", ["gpu"], data)
    return {problem.field: problem.message for problem in found}


def custom(**fields: Any) -> Model:
    command = ["/opt/x/serve", "--port", "{port}"]
    return Model(**({"name": "x", "engine": "custom", "gpus": [0], "command": command} | fields))


@pytest.mark.parametrize(
    "model",
    [
        Model("tiny", **GOOD),
        Model("a", **GOOD, port=1024, args={"max-model-len": 8192, "enforce-eager": True}),
        Model("a" * 63, source="hf:Qwen/Qwen3-0.6B@main", gpus=(0,)),
        Model("Qwen/Qwen3-8B", replica="qwen3-8b", **GOOD),
        Model("b", source="path:/m", gpus=[0, 1, 2, 3],
              args={"tensor-parallel-size": 2, "pipeline-parallel-size": 2}),
        Model("b", source="path:/m", gpus=[2, 3], args={"data-parallel-size": 2}),
        Model("c", source="path:/m", gpus=[4, 5]),
        Model("c", **GOOD, env={"VLLM_LOGGING_LEVEL": "DEBUG", "TOKENIZERS_PARALLELISM": "0"}),
        Model("c", **GOOD, args={"max-num-batched-tokens": 1, "return-tokens-as-token-ids": True,
                                 "kv-transfer-config": '{"kv_role": "kv_both"}'}),
        custom(),
        custom(command=["/usr/bin/serve", "--listen", "127.0.0.1:8101"]),
        custom(source="path:/srv/x", command=["/x", "{path}", "{model}", "{host}:{port}", '{"a"}']),
    ],
    ids=repr,
)  # fmt: skip
def test_nothing_is_wrong(model: Model) -> None:
    assert problems(model) == {}


MISTAKES: list[tuple[Any, str, str]] = [
    # names
    (Model(**GOOD), "name", "must be text and not empty"),
    (Model("Tiny", **GOOD), "name", "add replica='tiny'"),
    (Model("a_b", **GOOD), "name", "not a DNS label"),
    (Model("-a", **GOOD), "name", "not a DNS label"),
    (Model("a" * 64, **GOOD), "name", "not a DNS label"),
    (Model("ok\n", **GOOD), "name", "not a DNS label"),
    (Model("two words", replica="two", **GOOD), "name", "other characters"),
    (Model("ok", replica="Not OK", **GOOD), "replica", "not a DNS label"),
    # engine
    (Model("a", engine="vlm", **GOOD), "engine", "did you mean 'vllm'?"),
    (Model("a", engine="tg", **GOOD), "engine", "Known: vllm, custom, sglang"),
    (Model("a", engine=7, **GOOD), "engine", "unknown engine 7"),  # type: ignore[arg-type]
    # source
    (Model("a", gpus=[0]), "source", "write path:/srv/models/NAME"),
    (Model("a", source="path:models/x", gpus=[0]), "source", "'models/x' is not absolute"),
    (Model("a", source="path:/srv/../etc", gpus=[0]), "source", "no '..'"),
    (Model("a", source="path:/srv/a b", gpus=[0]), "source", "letters, digits"),
    (Model("a", source="/srv/models/x", gpus=[0]), "source", "write path:/srv/models/NAME"),
    (Model("a", source="hf:org/name", gpus=[0]), "source", "hf:org/name@REVISION"),
    (Model("a", source="hf:name@main", gpus=[0]), "source", "hf:organisation/name@revision"),
    (Model("a", source="hf:a/b/c@main", gpus=[0]), "source", "hf:organisation/name@revision"),
    (Model("a", source=3, gpus=[0]), "source", "must be text"),  # type: ignore[arg-type]
    # port and time
    (Model("a", port="8101", **GOOD), "port", "not '8101'"),  # type: ignore[arg-type]
    (Model("a", port=True, **GOOD), "port", "not True"),
    (Model("a", port=80, **GOOD), "port", "from 1024 to 65535"),
    (Model("a", port=65536, **GOOD), "port", "from 1024 to 65535"),
    (Model("a", port=8080, **GOOD), "port", "8080 is nginx's port; pick another, e.g. 8101"),
    (Model("a", port=9810, **GOOD), "port", "9810 is the agent's port"),
    (Model("a", port=9100, **GOOD), "port", "node exporter"),
    (Model("a", port=9090, **GOOD), "port", "Prometheus"),
    (Model("a", start_timeout=0, **GOOD), "start_timeout", "above 0"),
    (Model("a", start_timeout=float("nan"), **GOOD), "start_timeout", "above 0"),
    (Model("a", start_timeout="600", **GOOD), "start_timeout", "number of seconds"),  # type: ignore[arg-type]
    # GPUs
    (Model("a", source="path:/m"), "gpus", "accelerator = 'cpu'"),
    (Model("a", source="path:/m", gpus="0,1"), "gpus", "must be a list"),  # type: ignore[arg-type]
    (Model("a", source="path:/m", gpus=0), "gpus", "must be a list"),  # type: ignore[arg-type]
    (Model("a", source="path:/m", gpus=["0"]), "gpus", "whole numbers"),  # type: ignore[list-item]
    (Model("a", source="path:/m", gpus=[-1]), "gpus", "whole numbers from 0"),
    (Model("a", source="path:/m", gpus=[1, 1]), "gpus", "names a GPU twice"),
    (Model("a", source="path:/m", gpus=[0, 1], args={"tensor-parallel-size": 1}),
     "gpus", "{'tensor-parallel-size': 2}"),
    (Model("a", args={"tensor-parallel-size": 2}, **GOOD), "gpus", "would use 2"),
    (Model("a", source="path:/m", gpus=[0, 1],
           args={"tensor-parallel-size": 2, "data-parallel-size": 2}), "gpus", "would use 4"),
    (Model("a", args={"tensor-parallel-size": "1"}, **GOOD),
     "args.tensor-parallel-size", "whole number from 1, not '1'"),
    (Model("a", args={"tensor-parallel-size": 0}, **GOOD), "args.tensor-parallel-size", "from 1"),
    # flags
    (Model("a", args=["--x"], **GOOD), "args", "must be a dict"),  # type: ignore[arg-type]
    (Model("a", args={"--max-model-len": 1}, **GOOD), "args", "write it as 'max-model-len'"),
    (Model("a", args={"max_model_len": 1}, **GOOD), "args", "write it as 'max-model-len'"),
    (Model("a", args={"tensor-parallel": 1}, **GOOD), "args.tensor-parallel", "written in full"),
    (Model("a", args={"ho": "::"}, **GOOD), "args.ho", "beginning of --host"),
    (Model("a", args={"enforce-eager": False}, **GOOD), "args.enforce-eager", "leave it out"),
    (Model("a", args={"x": None}, **GOOD), "args.x", "must be text"),  # type: ignore[dict-item]
    (Model("a", args={"x": {"a": 1}}, **GOOD), "args.x", "JSON"),  # type: ignore[dict-item]
    (Model("a", args={"x": "a\nb"}, **GOOD), "args.x", "cannot be printed"),
    *((Model("a", args={flag: "x"}, **GOOD), f"args.{flag}", "Farrier sets this itself")
      for flag in ("host", "port", "model", "served-model-name", "api-key", "uds", "root-path",
                   "ssl-keyfile", "uvicorn-log-level", "config")),
    # LoRA adapters
    (Model("a", args={"enable-lora": True, "max-lora-rank": 24}, **GOOD),
     "args.max-lora-rank", "must be one of 1, 8, 16, 32, 64, 128, 256, 320, 512, not 24"),
    (Model("a", args={"lora-modules": "x=/srv/x"}, **GOOD), "args.lora-modules", "enable-lora"),
    (Model("a", args={"max-lora-rank": 8}, **GOOD), "args.max-lora-rank", "enable-lora"),
    *((Model("a", lora=lora, **GOOD), field, message) for lora, field, message in BAD_LORA),
    (custom(lora={"law": "path:/a"}), "lora", "gets its adapters otherwise"),
    (Model("a", lora={"law": "path:/a"}, args={"lora-modules": "x=/b"}, **GOOD),
     "args.lora-modules", "leave it out"),
    # one unit for a replica
    *((Model("a", args={flag: 2}, **GOOD), f"args.{flag}", "Farrier sets this itself: " + why)
      for flag, why in (("api-server-count", "one API server"), ("nnodes", SPAN),
                        ("data-parallel-size-local", ONE_UNIT), ("headless", SPAN))),
    (Model("a", source="path:/m", gpus=[0, 1], args={"prefill-context-parallel-size": 4}),
     "gpus", "would use 4 (prefill-context-parallel-size 4)"),
    # speculative decoding, prefix caching
    *((Model("a", args={"speculative-config": said}, **GOOD), "args.speculative-config", message)
      for said, message in (
        ("{", "JSON object"), ("[1]", "JSON object"), (3, "JSON object"),
        ('{"method": "ngram"}', "no num_speculative_tokens"),
        ('{"method": "ngram", "num_speculative_tokens": 0}', "whole number from 1, not 0"),
        ('{"model": "org/draft", "num_speculative_tokens": 4}', "asks no hub"),
    )),
    (Model("a", source="hf:o/n@v1", gpus=[0], args={
        "speculative-config": '{"model": "org/draft", "num_speculative_tokens": 4}'}),
     "args.speculative-config", "has no revision"),
    (Model("a", args={"enable-prefix-caching": True, "no-enable-prefix-caching": True}, **GOOD),
     "args.enable-prefix-caching", "contradicts args.no-enable-prefix-caching"),
    # environment
    (Model("a", env="A=1", **GOOD), "env", "must be a dict"),  # type: ignore[arg-type]
    (Model("a", env={"A B": "1"}, **GOOD), "env", "not the name of"),
    (Model("a", env={"A": 1}, **GOOD), "env.A", "write '1'"),  # type: ignore[dict-item]
    (Model("a", env={"A": "1\n2"}, **GOOD), "env.A", "cannot be printed"),
    (Model("a", env={"CUDA_VISIBLE_DEVICES": "1"}, **GOOD), "env.CUDA_VISIBLE_DEVICES", "gpus"),
    # custom engines
    (Model("a", command=["/x", "{port}"], **GOOD), "command", "only 'custom' takes one"),
    (custom(command=None), "command", "needs its argv"),
    (custom(command="/x {port}"), "command", "needs its argv as a list"),
    (custom(command=["serve", "{port}"]), "command", "absolute path"),
    (custom(command=["/x", "{prot}", "{port}"]), "command", "unknown placeholder {prot}"),
    (custom(command=["/x"]), "command", "{port}"),
    (custom(command=["/x", "{port}", "{path}"]), "command", "needs source='path:/…'"),
    (custom(source="hf:a/b@c", command=["/x", "{port}", "{path}"]), "command", "needs source"),
    (custom(command=["/x", "{port}", 1]), "command", "list of texts"),
    (custom(args={"a": 1}), "args", "takes its flags in command"),
    # anything else
    (Model("a", gpu=[0], **GOOD), "gpu", "did you mean 'gpus'?"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "field", "message"), MISTAKES, ids=[f"{f}: {m}" for _, f, m in MISTAKES]
)
def test_a_mistake_is_named(model: Model, field: str, message: str) -> None:
    found = problems(model)
    assert message in found[f"models[0].{field}"]
    assert len(found) == 1, "one mistake, one problem"


SECRET = "hf_" + "s3cr3t" * 6


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (Model("a", **GOOD, env={"HF_TOKEN": SECRET}), "env.HF_TOKEN"),
        (Model("a", **GOOD, env={"HUGGING_FACE_HUB_TOKEN": SECRET}), "env.HUGGING_FACE_HUB_TOKEN"),
        (Model("a", **GOOD, env={"OPENAI_API_KEY": SECRET}), "env.OPENAI_API_KEY"),
        (Model("a", **GOOD, env={"AWS_SECRET_ACCESS_KEY": SECRET}), "env.AWS_SECRET_ACCESS_KEY"),
        (Model("a", **GOOD, env={"HARMLESS": SECRET}), "env.HARMLESS"),
        (Model("a", **GOOD, args={"hf-token": SECRET}), "args.hf-token"),
        (Model("a", **GOOD, args={"harmless": SECRET}), "args.harmless"),
        (Model("a", **GOOD, args={"api-key": SECRET}), "args.api-key"),
        (custom(command=["/x", "{port}", "--api-key=" + SECRET]), "command"),
        (custom(command=["/x", "{port}", SECRET]), "command"),
    ],
)
def test_a_secret_is_refused_and_shown_nowhere(model: Model, field: str) -> None:
    data = {"models": [model], "open_access": OPEN_ACCESS}
    spec, found = read_host("gpu01", ["gpu"], data)
    assert [problem.field for problem in found] == [f"models[0].{field}"]
    everything = f"{found} {spec!r} {model!r} {model.to_json()}"
    assert SECRET not in everything


def test_replicas_of_a_host_share_neither_gpu_nor_port_nor_name() -> None:
    first = Model("a", **GOOD)
    found = problems(first, Model("a", source="path:/m", gpus=[0], port=8101))
    assert found == {
        "models[1].port": "8101 is the port of models[0] ('a'); pick another, e.g. 8102",
        "models[1].gpus": "GPU 0 already belongs to models[0] ('a')",
        "models[1].name": "models[0] is already the replica 'a'; "
        "give one of them another replica='…'",
    }
    assert problems(first, Model("a", replica="a2", source="path:/m", gpus=[1], port=8102)) == {}


def test_a_cpu_host_has_no_gpus_and_any_parallelism() -> None:
    on_cpu = Model("a", source="path:/m", args={"tensor-parallel-size": 2})
    assert problems(on_cpu, accelerator="cpu") == {}
    found = problems(Model("a", **GOOD), accelerator="cpu")
    assert "accelerator is 'cpu'" in found["models[0].gpus"]


GOOD_LAYOUTS = [
    {"lora": {"law": "path:/srv/a", "Org/chess": "path:/srv/b"}, "args": {"max-lora-rank": 64}},
    {"args": {"data-parallel-size": 2, "data-parallel-backend": "mp"}, "gpus": [0, 1]},
    {"args": {"tensor-parallel-size": 2, "pipeline-parallel-size": 2}, "gpus": [0, 1, 2, 3]},
    {"args": {"speculative-config": '{"model": "/srv/draft", "num_speculative_tokens": 4}'}},
    {"args": {"speculative-config": '{"method": "ngram", "num_speculative_tokens": 4}'}},
    {"args": {"no-enable-prefix-caching": True}},
]


@pytest.mark.parametrize("fields", GOOD_LAYOUTS, ids=str)
def test_layouts_of_one_host(fields: dict[str, Any]) -> None:
    assert problems(Model("a", **GOOD | fields)) == {}


def test_the_draft_model_of_speculative_decoding() -> None:
    def draft(said: Any) -> str | None:
        return draft_of(Model("a", args={"speculative-config": said}, **GOOD))

    assert draft('{"model": "/srv/draft"}') == "/srv/draft"
    assert draft('{"model": "org/draft"}') is draft('{"method": "ngram"}') is draft("{") is None
    assert draft_of(Model("a", **GOOD)) is None


def test_what_a_client_names_is_one_model_or_one_adapter() -> None:
    def named(name: str, *adapters: str) -> Model:
        return Model(name, lora=dict.fromkeys(adapters, "path:/a"), **GOOD)

    assert clashes([named("a", "law"), named("a", "law", "chess"), named("b", "go")]) == {}
    found = clashes([named("a", "law", "b"), named("b", "law")])
    assert found["b"] == "'b' is a model of this fleet: take another name"
    assert found["law"].startswith("'law' is an adapter of a and of b: ")


def test_sources_are_typed() -> None:
    assert Model("a", source="path:/srv/m").parsed_source() == PathSource(PurePosixPath("/srv/m"))
    assert Model("a", source="hf:o/n@v1").parsed_source() == HubSource("o/n", "v1")
    with pytest.raises(ValueError, match="no revision"):
        Model("a", source="hf:o/n").parsed_source()


def test_a_custom_command_gets_its_values_once() -> None:
    model = custom(name="{path}", command=["/x", "{host}:{port}", "{model}", '{"json": 1}'])
    argv = model.custom_argv(host="127.0.0.1", path="/srv/m")
    assert argv == ("/x", "127.0.0.1:8101", "{path}", '{"json": 1}')


def test_a_model_remembers_the_line_it_was_written_on() -> None:
    model = Model("a")
    other = replace(
        model,
        port=9,
    )
    here = test_a_model_remembers_the_line_it_was_written_on.__code__.co_firstlineno
    assert model.place.file == __file__
    assert model.place.line == here + 1
    assert other.place.line == here + 2
    assert other.port == 9
    assert model == Model("a"), "where it was written makes no other model of it"
