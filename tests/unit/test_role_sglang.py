"""The role sglang: the command, the environment, what the inventory may say."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farrier.preflight.found import Case
from farrier.preflight.rules.weights import for_its_python
from farrier.preflight.wanted import ENGINE_CUDA, wanted
from farrier.spec import OPEN_ACCESS, HostSpec, Model, read_host
from farrier.wheelhouse import split_lock
from roles import engine
from roles import sglang as role
from roles.engine.commands import argv, environment
from tests.unit.preflight_hosts import HEALTHY

PROGRAM = "/opt/farrier/sglang/0.5.23-abcdef01"
SETTINGS = engine.DEFAULTS.data()
CUDA = HostSpec("gpu01", groups=("gpu",))
FIELDS: dict[str, Any] = {
    "name": "org/coder",
    "replica": "coder",
    "engine": "sglang",
    "source": "path:/srv/models/coder",
    "gpus": [2, 3],
}


def problems(accelerator: str = "cuda", **fields: Any) -> dict[str, str]:
    data = {
        "models": [Model(**FIELDS | fields)],
        "open_access": OPEN_ACCESS,
        "accelerator": accelerator,
    }
    return {one.field: one.message for one in read_host("gpu01", ["gpu"], data)[1]}


def test_it_is_started_on_loopback_over_all_of_its_gpus() -> None:
    model = Model(**FIELDS, port=8105, args={"mem-fraction-static": 0.8, "trust-remote-code": True})
    assert argv(model, CUDA, SETTINGS, PROGRAM) == [
        *(f"{PROGRAM}/bin/python", "-m", "sglang.launch_server"),
        *("--model-path", "/srv/models/coder", "--served-model-name", "org/coder"),
        *("--host", "127.0.0.1", "--port", "8105", "--enable-metrics", "--tp-size", "2"),
        *("--mem-fraction-static", "0.8", "--trust-remote-code"),
    ]
    assert "--tp-size" not in argv(replace(model, gpus=(0,)), CUDA, SETTINGS, PROGRAM)
    own = replace(model, args={"pp-size": 2})
    assert argv(own, CUDA, SETTINGS, PROGRAM)[-2:] == ["--pp-size", "2"]


def test_a_hub_model_is_loaded_at_its_revision() -> None:
    hub = Model(**FIELDS | {"source": "hf:some/model@0123abc"})
    words = " ".join(argv(hub, CUDA, SETTINGS, PROGRAM))
    assert "--model-path some/model --revision 0123abc --served" in words


def test_what_it_compiles_is_kept_by_version_and_its_workers_stay_on_loopback() -> None:
    values = environment(Model(**FIELDS), CUDA, PROGRAM)
    state = "/var/lib/farrier/engines/coder/0.5.23-abcdef01"
    for name in ("SGLANG_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
        assert values[name].startswith(f"{state}/")
    assert values["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert {values["NCCL_SOCKET_IFNAME"], values["GLOO_SOCKET_IFNAME"]} == {"lo"}
    assert values["SGLANG_HOST_IP"] == "127.0.0.1"
    assert values["PATH"].startswith(f"{PROGRAM}/bin:/usr/local/cuda/bin:")
    command = ["/opt/sglang/bin/python", "{port}", "{host}", "--enable-metrics"]
    assert "SGLANG_CACHE_DIR" not in environment(Model(**FIELDS, command=command), CUDA, "/usr")


@pytest.mark.parametrize(
    ("fields", "field", "told"),
    [
        ({"accelerator": "cpu", "gpus": []}, "engine", "needs GPUs"),
        ({"args": {"tp-size": 3}}, "gpus", "would use 3"),
        ({"args": {"tp": 2}}, "args.tp", "tp-size"),
        ({"args": {"host": "::"}}, "args.host", "127.0.0.1 only"),
        ({"args": {"enable-metrics": True}}, "args.enable-metrics", "the agent reads them"),
        ({"args": {"nnodes": 2}}, "args.nnodes", "one unit on one host"),
        ({"lora": {"law": "path:/srv/law"}}, "lora", "lora is for 'vllm'"),
        ({"source": "path:/srv/models/x.gguf"}, "source", "no GGUF file"),
    ],
)
def test_what_the_inventory_may_not_say(fields: dict[str, Any], field: str, told: str) -> None:
    assert told in problems(**fields)[f"models[0].{field}"]


def test_what_it_may_say() -> None:
    assert problems() == {}
    assert problems(args={"tp-size": 1, "dp-size": 2}) == {}
    assert problems(args={"tp-size": 2, "dp-size": 2, "enable-dp-attention": True}) == {}


def test_a_preflight_knows_the_program_and_its_cuda() -> None:
    here = wanted(replace(CUDA, models=(Model(**FIELDS),)), {})
    (program,) = here.programs
    assert (program.name, program.locked) == ("sglang 0.5.23", True)
    assert here.engine_need is not None
    assert here.engine_need[:2] == ("sglang", ENGINE_CUDA["sglang"])
    own = Model(**FIELDS, command=["/opt/sglang/bin/python", "{port}"])
    assert wanted(replace(CUDA, models=(own,)), {}).engine_need is None
    assert wanted(replace(CUDA, models=(own,)), {}).programs == ()


def test_locks_of_the_operators_own_take_the_place_of_the_roles(tmp_path: Path) -> None:
    (tmp_path / "cuda-cp312.txt").write_text("sglang==0.6.0\n")
    settings = role.DEFAULTS.data() | {"sglang_locks": str(tmp_path), "sglang_version": "0.6.0"}
    made = role.sglang_environment("cuda", settings)
    assert [python for python, _ in made.locks] == ["3.12"]
    assert made.path.startswith("/opt/farrier/sglang/0.6.0-")
    assert role.sglang_environment("cpu", settings).locks == ()


def test_a_host_with_another_python_is_known_beforehand_unless_the_program_is_there() -> None:
    here = wanted(replace(CUDA, models=(Model(**FIELDS),)), {})
    trixie = replace(HEALTHY.basics, system="debian 13")
    (told,) = for_its_python(Case(here, replace(HEALTHY, basics=trixie)))
    assert "no lock for Python 3.13, which debian 13 has (only for 3.11, 3.12)" in told.message
    there = replace(trixie, complete=frozenset({here.programs[0].path}))
    assert not list(for_its_python(Case(here, replace(HEALTHY, basics=there))))
    assert not list(for_its_python(Case(here, HEALTHY)))


def test_there_is_a_lock_where_all_that_it_pins_has_wheels() -> None:
    """outlines-core 0.1.26 has none for Python 3.13."""
    made = role.sglang_environment("cuda", role.DEFAULTS.data())
    assert [python for python, _ in made.locks] == ["3.11", "3.12"]


@pytest.mark.parametrize("file", sorted(role.LOCKS.glob("*.txt")), ids=lambda file: file.stem)
def test_the_locks_have_what_the_role_says(file: Path) -> None:
    lock = split_lock(file.read_text(encoding="utf-8"))
    versions = {name: block.split()[0].partition("==")[2] for name, block in lock.items()}
    assert versions["sglang"] == role.DEFAULTS.data()["sglang_version"]
    assert "+" not in versions["torch"], "a build of torch for something else than PyPI's CUDA"
    runtime = re.match(r"\d+\.\d+", versions["nvidia-cuda-runtime"])
    assert runtime
    assert runtime[0] == ENGINE_CUDA["sglang"]
