"""What the server over Transformers refuses to load, and how it ends when it breaks (4 min)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from farrier.lab.tiny_model import write_tiny_model
from tests.agent.host import until
from tests.full.transformers_server import made_by, python_of_the_lock, serving

PICKLES = """
import sys, torch
from safetensors.torch import load_file
torch.save(load_file(f"{sys.argv[1]}/model.safetensors"), f"{sys.argv[1]}/pytorch_model.bin")
"""
OWN_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM


class OddConfig(LlamaConfig):
    model_type = "odd"


class OddForCausalLM(LlamaForCausalLM):
    config_class = OddConfig

    def forward(self, input_ids=None, **more):
        if input_ids is not None and input_ids.shape[-1] == 13:
            raise ValueError("thirteen")
        if input_ids is not None and input_ids.shape[-1] == 17:
            raise SystemExit("seventeen")
        return super().forward(input_ids=input_ids, **more)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return python_of_the_lock(tmp_path_factory.mktemp("transformers"))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    write_tiny_model(tmp_path / "tiny")
    return tmp_path / "tiny"


def configured(model: Path, **fields: object) -> None:
    file = model / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def pickles(python: Path, model: Path) -> None:
    made_by(python, PICKLES, model)
    (model / "model.safetensors").unlink()


def lacking(_: Path, model: Path) -> None:
    configured(model, num_hidden_layers=3)


def own_code(_: Path, model: Path) -> None:
    (model / "odd.py").write_text(OWN_CODE)
    classes = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddForCausalLM"}
    configured(model, model_type="odd", auto_map=classes, architectures=["OddForCausalLM"])


def nothing(_: Path, model: Path) -> None:
    shutil.rmtree(model)


def as_it_is(_: Path, model: Path) -> None:
    assert (model / "config.json").is_file()


@pytest.mark.parametrize(
    ("change", "case"),
    [
        (as_it_is, (["--device", "cuda"], "--device cuda: torch 2.13.0+cpu")),
        (as_it_is, (["--device", "cpu", "--max-model-len", "4096"], "made for 2048 tokens")),
        (pickles, (["--device", "cpu"], "--allow-pickle takes them")),
        (lacking, (["--device", "cpu"], "lacks weights of LlamaForCausalLM: model.layers.2")),
        (own_code, (["--device", "cpu"], "--trust-remote-code only: read it first")),
        (nothing, (["--device", "cpu"], "could not be loaded")),
    ],
    ids=["no-gpu", "context", "pickle", "missing", "own-code", "no-model"],
)
def test_it_ends_and_says_why(
    python: Path,
    tiny: Path,
    tmp_path: Path,
    change: Callable[[Path, Path], None],
    case: tuple[Sequence[str], str],
) -> None:
    flags, told = case
    change(python, tiny)
    with serving(python, tiny, *flags, log=tmp_path / "log", cpu=False) as it:
        assert it.ends() == 1, it.said
        assert 200 not in it.seen
        last = [line for line in it.said.splitlines() if line.startswith("CRITICAL")]
        assert last, it.said
        assert told in last[-1]


def test_pickles_are_loaded_when_they_are_asked_for(
    python: Path, tiny: Path, tmp_path: Path
) -> None:
    pickles(python, tiny)
    with serving(python, tiny, "--allow-pickle", log=tmp_path / "log") as it:
        assert it.complete(max_tokens=2)[0] == 200, it.said


def test_code_of_the_models_own_a_request_that_fails_and_a_thread_that_is_lost(
    python: Path, tiny: Path, tmp_path: Path
) -> None:
    own_code(python, tiny)
    with serving(python, tiny, "--trust-remote-code", log=tmp_path / "log") as it:
        assert it.complete(max_tokens=2)[0] == 200, it.said
        status, answer = it.complete(prompt=[7] * 13)
        assert (status, answer["error"]["type"]) == (500, "server_error")
        assert "thirteen" in answer["error"]["message"]
        assert it.ask("/health")[0] == 200, "one bad request is not the end"
        status, answer = it.complete(prompt=[7] * 17)
        assert status == 500
        assert "started again" in answer["error"]["message"]
        until(lambda: "seventeen" in it.said, 30)
        assert it.ends() == 1, "systemd starts it again"
