"""What engines answer to OpenAI's client, itself, through nginx and a gateway (10 min).

The real engines on this machine's CPU, each as a process with the command line and the environment
that its unit has; real nginx and HAProxy before it. What they answer is kept in docs/fidelity.json,
of which docs/fidelity.md is made. llama.cpp is asked where `make test-full PART=llama_cpp` has
built it before.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from farrier_agent.engines import ENGINES
from farrier_agent.loopback import asker
from farrier_agent.warmup import warm_up

from farrier.fidelity_page import QUESTIONS, WAYS, Asked, record
from farrier.lab.tiny_gguf import tiny_gguf
from farrier.lab.tiny_model import write_tiny_model
from farrier.spec import HostSpec, Model
from farrier.tarballs import cache_directory
from roles import engine as engine_role
from roles import llama_cpp, transformers, vllm
from roles.engine.commands import argv, environment
from tests.agent.host import free_port
from tests.fidelity import CONTEXT, answers
from tests.fronts import fronts, versions
from tests.full.transformers_server import PATIENCE, python_of_the_lock

SPEC = HostSpec("gpu01", groups=("gpu",), accelerator="cpu")
SETTINGS = engine_role.DEFAULTS.data()
STATE = "/var/lib/farrier/engines/tiny"
"""Where its unit would keep what it caches."""


@dataclass(frozen=True)
class Program:
    """A real engine as a model of the inventory: *bring* has it in a directory and says where."""

    version: str
    bring: Callable[[Path], str]
    fields: dict[str, Any]


def _environment_of(role: Any, name: str) -> Callable[[Path], str]:
    def bring(directory: Path) -> str:
        made = getattr(role, f"{name}_environment")("cpu", role.DEFAULTS.data())
        return str(python_of_the_lock(directory, made).parents[1])

    return bring


def _built(directory: Path) -> str:
    built = llama_cpp.llama_cpp_release(llama_cpp.DEFAULTS.data(), "cpu")
    kept = cache_directory().parent / "built" / f"{built.name}.tar.gz"
    if not kept.is_file():
        pytest.fail(f"{kept} is not there; make test-full PART=llama_cpp builds it")
    with tarfile.open(kept) as tar:
        tar.extractall(directory, filter="data")
    return str(directory / built.name / built.program)


PROGRAMS = {
    "transformers": Program(
        transformers.DEFAULTS.data()["transformers_version"],
        _environment_of(transformers, "transformers"),
        {"env": {"OMP_NUM_THREADS": "1"}},
    ),
    "llama_cpp": Program(
        f"of llama-cpp-python {llama_cpp.DEFAULTS.data()['llama_cpp_version']}",
        _built,
        {"args": {"parallel": 4, "ctx-size": 4 * CONTEXT, "threads": 1}},
    ),
    "vllm": Program(
        vllm.DEFAULTS.data()["vllm_version"],
        _environment_of(vllm, "vllm"),
        {
            "args": {"enforce-eager": True, "max-model-len": CONTEXT},
            "env": {
                "VLLM_CPU_KVCACHE_SPACE": "1",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "OMP_NUM_THREADS": "1",
            },
        },
    ),
}


@contextmanager
def served(name: str, directory: Path) -> Iterator[Model]:
    """The model of that engine, served and warm."""
    wanted = PROGRAMS[name]
    program = wanted.bring(directory / "program")
    source = directory / ("tiny.gguf" if name == "llama_cpp" else "tiny")
    if name == "llama_cpp":
        source.write_bytes(tiny_gguf())
    else:
        write_tiny_model(source)
    model = Model("tiny", engine=name, source=f"path:{source}", port=free_port(), **wanted.fields)
    state = directory / "state"
    state.mkdir()
    values = {
        variable: value.replace(STATE, str(state))
        for variable, value in environment(model, SPEC, program).items()
    }
    log = directory / "log"
    with (
        log.open("wb") as file,
        subprocess.Popen(
            argv(model, SPEC, SETTINGS, program),
            env=os.environ | values | {"PYTHONPATH": ""},
            cwd=state,
            stdout=file,
            stderr=file,
            start_new_session=True,
        ) as process,
    ):
        try:
            warm(name, model, process, log)
            yield model
        finally:
            with suppress(ProcessLookupError):  # none of them is left
                os.killpg(process.pid, signal.SIGKILL)


def warm(name: str, model: Model, process: subprocess.Popen[bytes], log: Path) -> None:
    """Warm the engine up as the agent does, unless it ends first."""

    async def warmed() -> str | None:
        going = asyncio.create_task(
            warm_up(asker(model.port), ENGINES[name], "tiny", deadline=PATIENCE, again=(0.5, 0.5))
        )
        while not going.done() and process.poll() is None:
            await asyncio.wait([going], timeout=1)
        if going.done():
            return (await going).why
        going.cancel()
        return f"it ended with {process.returncode}"

    why = asyncio.run(warmed())
    assert why is None, f"{why}\n{log.read_text(errors='replace')[-4000:]}"


Found = tuple[str, dict[str, dict[str, str]]]


@pytest.fixture(scope="module", params=PROGRAMS)
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """The engine's name, and what it answered, which is kept."""
    name: str = request.param
    directory = tmp_path_factory.mktemp(name)
    (directory / "program").mkdir()
    with served(name, directory) as model, fronts(directory / "fronts", model) as ways:
        found = answers(ways, "tiny", model.port, ENGINES[name])
    record(
        name,
        Asked(
            version=PROGRAMS[name].version,
            real=True,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            proxies=versions(),
            answers=found,
        ),
    )
    print(found)
    return name, found


OWN = {"models", "unknown_model", "not_json", "wrong_key", "leaves"}
"""What a gateway answers itself, and what is measured."""


def test_nothing_was_left_out(asked: Found) -> None:
    _, found = asked
    assert found.keys() == QUESTIONS.keys()
    for question, by in found.items():
        assert set(by) == ({"gateway"} if question == "wrong_key" else set(WAYS)), question


def test_nginx_and_gateway_pass_on_what_the_engine_says(asked: Found) -> None:
    _, found = asked
    told = {question: by for question, by in found.items() if len(set(by.values())) > 1}
    assert told.keys() <= OWN, told
    for question in OWN - {"wrong_key", "leaves"}:
        assert found[question]["engine"] == found[question]["nginx"], question


@pytest.mark.parametrize("question", ["models", "chat", "stream", "completions", "stop"])
def test_what_every_client_needs_is_answered(asked: Found, question: str) -> None:
    _, found = asked
    assert set(found[question].values()) == {"yes"}


@pytest.mark.parametrize(
    ("question", "status"),
    [("not_json", "400"), ("wrong_type", "400"), ("too_long", "400"), ("wrong_key", "401")],
)
def test_what_is_wrong_is_told_in_openais_shape(asked: Found, question: str, status: str) -> None:
    name, found = asked
    for told in found[question].values():
        # llama-server has a status of its own for some: what it is stands on the page
        assert told.startswith(f"{status} `") or name == "llama_cpp", told
        assert "other shape" not in told


def test_another_model_is_not_found_through_the_gateway(asked: Found) -> None:
    """llama-server serves whatever name is asked for: one more reason for the gateway to look."""
    name, found = asked
    told = found["unknown_model"]
    assert told["gateway"].startswith("404 `")
    if name != "llama_cpp":
        assert told["engine"].startswith("404 `")


def test_a_client_that_leaves_ends_its_generation(asked: Found) -> None:
    _, found = asked
    for way, told in found["leaves"].items():
        assert told.endswith(" s"), f"{way}: {told}"
        assert float(told.removesuffix(" s")) < 10, f"{way}: {told}"
