"""The role transformers: the command, the environment, what the inventory may say."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from farrier_transformers.options import parse

from farrier.converge import environments
from farrier.preflight.wanted import ENGINE_CUDA, wanted
from farrier.spec import OPEN_ACCESS, HostSpec, Model, read_host
from farrier.wheelhouse import project_files, split_lock
from roles import engine
from roles import transformers as role
from roles.engine.commands import argv, environment

PROGRAM = "/opt/farrier/transformers/5.19.0-abcdef01"
SETTINGS = engine.DEFAULTS.data()
CUDA = HostSpec("gpu01", groups=("gpu",))
CPU = replace(CUDA, accelerator="cpu")
FIELDS: dict[str, Any] = {
    "name": "odd/model",
    "replica": "odd",
    "engine": "transformers",
    "source": "path:/srv/models/odd",
    "gpus": [2],
}


def problems(**fields: Any) -> dict[str, str]:
    data = {"models": [Model(**FIELDS | fields)], "open_access": OPEN_ACCESS}
    return {one.field: one.message for one in read_host("gpu01", ["gpu"], data)[1]}


def test_it_is_started_on_loopback_on_the_hosts_accelerator() -> None:
    model = Model(**FIELDS, port=8105, args={"dtype": "bfloat16", "trust-remote-code": True})
    words = argv(model, CUDA, SETTINGS, PROGRAM)
    assert words == [
        *(f"{PROGRAM}/bin/python", "-m", "farrier_transformers", "--model", "/srv/models/odd"),
        *("--served-model-name", "odd/model", "--host", "127.0.0.1", "--port", "8105"),
        *("--device", "cuda", "--shutdown-timeout", "60"),
        *("--dtype", "bfloat16", "--trust-remote-code"),
    ]
    said = parse(words[3:])
    assert (said.name, said.port, said.device) == ("odd/model", 8105, "cuda")
    assert (said.dtype, said.trust_remote_code, said.allow_pickle) == ("bfloat16", True, False)
    assert "--device cpu" in " ".join(argv(replace(model, gpus=()), CPU, SETTINGS, PROGRAM))


def test_it_is_cut_before_systemd_would_kill_it() -> None:
    own = Model(**FIELDS, args={"shutdown-timeout": 5})
    assert argv(own, CUDA, SETTINGS, PROGRAM).count("--shutdown-timeout") == 1
    unit = engine.unit_text(Model(**FIELDS), CUDA, SETTINGS, PROGRAM)
    said = re.search(r"--shutdown-timeout (\d+)", unit)
    until_kill = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert said
    assert until_kill
    assert int(said[1]) < int(until_kill[1])
    assert "User=farrier-engine\n" in unit


def test_a_hub_model_is_loaded_at_its_revision_and_a_directory_without_the_hub() -> None:
    hub = Model(**FIELDS | {"source": "hf:some/model@0123abc"})
    assert "--model some/model --revision 0123abc" in " ".join(argv(hub, CUDA, SETTINGS, PROGRAM))
    assert "HF_HUB_OFFLINE" not in environment(hub, CUDA, PROGRAM)
    values = environment(Model(**FIELDS), CUDA, PROGRAM)
    assert (values["HF_HUB_OFFLINE"], values["CUDA_VISIBLE_DEVICES"]) == ("1", "2")
    assert values["PYTHONPYCACHEPREFIX"].startswith("/var/lib/farrier/engines/odd/")


def test_what_the_inventory_may_say_and_what_not() -> None:
    assert problems() == problems(args={"max-waiting": 4}) == {}
    assert "takes one GPU" in problems(gpus=[0, 1])["models[0].gpus"]
    assert "the host's accelerator" in problems(args={"device": "cpu"})["models[0].args.device"]
    assert "models[0].command" in problems(command=["/x", "{port}"])
    assert "models[0].source" in problems(source="path:/srv/models/x.gguf")


@pytest.mark.parametrize("words", [["--device", "tpu"], ["--device", "cuda:x"], ["--port", "-1"]])
def test_flags_that_are_none_end_it(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--model", "/m", *words])
    assert ended.value.code == 2
    assert words[1] in capsys.readouterr().err


@pytest.mark.parametrize("file", sorted(role.LOCKS.glob("*.txt")), ids=lambda file: file.stem)
def test_the_locks_have_what_the_role_says(file: Path) -> None:
    lock = split_lock(file.read_text(encoding="utf-8"))
    versions = {name: block.split()[0].partition("==")[2] for name, block in lock.items()}
    assert versions["transformers"] == role.DEFAULTS.data()["transformers_version"]
    cpu = file.stem.startswith("cpu")
    assert versions["torch"].endswith("+cpu") == cpu
    assert ("nvidia-cuda-runtime" in versions) != cpu
    if not cpu:
        assert versions["nvidia-cuda-runtime"].startswith(ENGINE_CUDA["transformers"])


def test_another_server_is_another_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = role.DEFAULTS.data()
    cuda, cpu = (role.transformers_environment(kind, settings) for kind in ("cuda", "cpu"))
    assert cuda.path != cpu.path
    assert [python for python, _ in cuda.locks] == ["3.11", "3.12", "3.13"]
    assert {path.name for path in project_files(role.SERVER)} > {"pyproject.toml", "__main__.py"}
    assert not cuda.service, "running engines keep the version they run"
    environments._version.cache_clear()
    assert replace(cuda, source=None).path != cuda.path


def test_a_preflight_knows_the_program_and_its_cuda() -> None:
    here = wanted(replace(CUDA, models=(Model(**FIELDS),)), {})
    (program,) = here.programs
    assert program.name == "transformers 5.19.0"
    assert here.engine_need is not None
    assert here.engine_need[:2] == ("transformers", "13.0")


def test_the_server_says_its_flags_without_torch() -> None:
    """``--help`` of the program itself; what knows torch is imported when it loads."""
    import sys

    command = [sys.executable, "-m", "farrier_transformers", "--help"]
    done = subprocess.run(command, cwd=role.SERVER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for flag in ("--device", "--max-waiting", "--trust-remote-code", "--allow-pickle"):
        assert flag in done.stdout
