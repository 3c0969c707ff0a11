"""Which engine takes which fields, how each is started, and what is wrong with a command."""

from __future__ import annotations

from typing import Any

import pytest
from farrier_agent.engines import ENGINES as ADAPTERS

from farrier.spec import OPEN_ACCESS, HostSpec, Model, read_host
from farrier.spec.engines import ENGINES
from roles import engine
from roles.engine.commands import argv

STARTED = sorted(name for name, one in ENGINES.items() if one.example)
SETTINGS = engine.DEFAULTS.data()


def started(name: str, **fields: Any) -> Model:
    """A model that the engine *name* serves as its example says."""
    source = "path:/srv/models/x.gguf" if ENGINES[name].takes == ("gguf",) else "path:/srv/models/x"
    given = {"name": "x", "engine": name, "source": source, "gpus": [0]}
    return Model(**(given | {"command": list(ENGINES[name].example)} | fields))


def problems(model: Model, **data: Any) -> dict[str, str]:
    data = {"models": [model], "open_access": OPEN_ACCESS} | data
    return {one.field: one.message for one in read_host("gpu01", ["gpu"], data)[1]}


def test_the_agent_has_the_adapter_of_every_engine() -> None:
    for one in ENGINES.values():
        assert one.asked_as("cuda") in ADAPTERS
        assert one.asked_as("cpu") in ADAPTERS
    assert ENGINES["custom"].asked_as("cuda") == "openai"
    assert ENGINES["vllm"].asked_as("cpu") == "vllm"
    assert ENGINES["ollama"].asked_as("cuda") == "ollama"
    assert ENGINES["ollama"].asked_as("cpu") == "ollama-on-cpu"


@pytest.mark.parametrize("name", STARTED)
def test_the_example_of_an_engine_is_a_good_command(name: str) -> None:
    assert problems(started(name)) == {}
    without = problems(started(name, command=None))
    if ENGINES[name].may_have_command:
        assert without == {}, "the role's program runs"
    else:
        assert name in without["models[0].command"]


@pytest.mark.parametrize("name", STARTED)
def test_it_listens_on_loopback_and_its_unit_has_no_placeholder_left(name: str) -> None:
    model = started(name, port=8123)
    words = argv(model, HostSpec("gpu01", groups=("gpu",)), SETTINGS, "/usr")
    assert any("127.0.0.1" in word for word in words)
    assert any("8123" in word for word in words)
    assert not [word for word in words if "{" in word]
    unit = engine.unit_text(model, HostSpec("gpu01", groups=("gpu",)), SETTINGS, "/usr")
    assert "User=farrier-engine\n" in unit


@pytest.mark.parametrize("name", STARTED)
@pytest.mark.parametrize(
    ("word", "instead"), [("{host}", "0.0.0.0"), ("{host}", "::"), ("{host}", "192.0.2.7")]
)
def test_one_that_listens_elsewhere_is_refused(name: str, word: str, instead: str) -> None:
    command = [one.replace(word, instead) for one in ENGINES[name].example]
    assert "127.0.0.1 only" in problems(started(name, command=command))["models[0].command"]


@pytest.mark.parametrize(
    ("name", "flag"), [("sglang", "--enable-metrics"), ("llama_cpp", "--metrics")]
)
def test_one_that_would_hide_its_load_is_refused(name: str, flag: str) -> None:
    command = [word for word in ENGINES[name].example if word != flag]
    assert problems(started(name, command=command))["models[0].command"].startswith(f"lacks {flag}")


@pytest.mark.parametrize("name", ["sglang", "tgi", "trtllm"])
def test_one_without_a_build_for_the_cpu_needs_gpus(name: str) -> None:
    found = problems(started(name, gpus=[]), accelerator="cpu")
    assert found == {
        "models[0].engine": f"{name!r} needs GPUs, and the host's accelerator is 'cpu'"
    }


def test_a_gguf_file_is_for_engines_that_read_it() -> None:
    found = problems(Model("a", source="path:/srv/models/a.gguf", gpus=[0]))
    assert found == {
        "models[0].source": "engine 'vllm' takes no GGUF file; engines that do: custom, llama_cpp,"
        " ollama"
    }
    found = problems(started("llama_cpp", source="path:/srv/models/x"))
    assert found == {
        "models[0].source": "engine 'llama_cpp' takes a GGUF file: write path:/srv/models/NAME.gguf"
    }
    assert problems(started("llama_cpp", source="hf:a/b@main")).keys() >= {"models[0].source"}
