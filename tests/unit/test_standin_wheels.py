"""Wheels and tarballs that have an engine's name: what the lab installs is what tests can start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from farrier_agent.engines import ENGINES

from farrier.spec import HostSpec, Model
from farrier.wheelhouse import split_lock
from roles import engine
from roles.engine.commands import argv
from tests.agent.host import free_port, until
from tests.agent.standin import Client
from tests.fakes.ollama.packing import program, tarball
from tests.fakes.wheels import building

CUDA = HostSpec("gpu01", groups=("gpu",))
SETTINGS = engine.DEFAULTS.data()


def listens(client: Client) -> bool:
    try:
        return client.ask("GET", "/executed")[0] == 200
    except ConnectionError:
        return False


@pytest.mark.parametrize("project", [building.SGLANG, building.TRTLLM], ids=lambda one: one.name)
def test_a_wheel_is_the_same_whenever_it_is_made_and_its_lock_pins_it(
    project: building.Project, tmp_path: Path
) -> None:
    made = [building.wheel(project, "1.0", tmp_path / name) for name in "ab"]
    assert made[0].read_bytes() == made[1].read_bytes()
    (block,) = split_lock(building.lock(project, "1.0", made[0])).items()
    assert block[0] == project.name
    with zipfile.ZipFile(made[0]) as archive:
        names = set(archive.namelist())
        record = archive.read(f"{project.package}-1.0.dist-info/RECORD").decode()
    assert {line.split(",")[0] for line in record.splitlines()} == names


@contextmanager
def started(model: Model, project: building.Project, home: Path) -> Iterator[Client]:
    """The program of *model* as its unit starts it, from a wheel that was unpacked in *home*."""
    with zipfile.ZipFile(building.wheel(project, "1.0", home)) as archive:
        archive.extractall(home / "lib")
    words = argv(model, CUDA, SETTINGS, "/opt/x")
    options = home / "serve.yaml"
    options.write_text("return_perf_metrics: true\n", encoding="utf-8")
    words = [str(options) if word.endswith("/serve.yaml") else word for word in words]
    start = words[1:] if project is building.SGLANG else ["-m", "tensorrt_llm.serve", *words[1:]]
    env = os.environ | {
        "PYTHONPATH": str(home / "lib"),
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, model.gpus)),
        "STANDIN_ACCOUNT": str(home / "executed"),
    }
    command = [sys.executable, *start]
    with subprocess.Popen(command, env=env, start_new_session=True) as process:
        try:
            client = Client(model.port)
            until(lambda: listens(client))
            yield client
        finally:
            # its workers ignore SIGTERM, and there is no unit here that ends them
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("name", "project"), [("sglang", building.SGLANG), ("trtllm", building.TRTLLM)]
)
def test_a_wheels_program_takes_what_its_unit_says(
    name: str, project: building.Project, tmp_path: Path
) -> None:
    source = tmp_path / "tiny"
    source.mkdir()
    (source / "config.json").write_text("{}", encoding="utf-8")
    model = Model("tiny", engine=name, source=f"path:{source}", gpus=[0, 1], port=free_port())
    adapter = ENGINES[name]
    with started(model, project, tmp_path) as client:
        until(lambda: client.ask("GET", adapter.paths[0])[0] == 200)
        assert client.chat("one")[0] == 200
        assert client.ask("GET", str(adapter.metrics))[0] == 200
    assert (tmp_path / "executed").read_text().count('"begun": "one"') == 1


def test_a_release_is_laid_out_as_ollamas_own(tmp_path: Path) -> None:
    (tmp_path / "release").write_bytes(tarball("1.2.3"))
    subprocess.run(["tar", "-xf", tmp_path / "release", "-C", tmp_path], check=True)
    said = subprocess.run(
        [tmp_path / "bin/ollama", "--version"], capture_output=True, text=True, check=True
    )
    assert said.stdout == "ollama version is 1.2.3-standin\n"
    assert (tmp_path / "lib/ollama").is_dir()
    assert program("1.2.3") == (tmp_path / "bin/ollama").read_bytes()
