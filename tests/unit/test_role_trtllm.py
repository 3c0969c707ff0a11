"""The role trtllm: the command, the environment, the lock that is the operator's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farrier.preflight.wanted import wanted
from farrier.spec import OPEN_ACCESS, HostSpec, Model, read_host
from farrier.spec.engines import TRTLLM_OPTIONS
from roles import engine
from roles import trtllm as role
from roles.engine.commands import argv, environment

PROGRAM = "/opt/farrier/trtllm/1.2.1-abcdef01"
SETTINGS = engine.DEFAULTS.data()
CUDA = HostSpec("gpu01", groups=("gpu",))
FIELDS: dict[str, Any] = {
    "name": "qwen",
    "engine": "trtllm",
    "source": "path:/srv/models/qwen",
    "gpus": [0, 1],
}


def problems(**fields: Any) -> dict[str, str]:
    data = {"models": [Model(**FIELDS | fields)], "open_access": OPEN_ACCESS}
    return {one.field: one.message for one in read_host("gpu01", ["gpu"], data)[1]}


def test_it_is_started_on_loopback_with_the_page_of_metrics() -> None:
    model = Model(**FIELDS, port=8105, args={"max-batch-size": 64, "trust-remote-code": True})
    assert argv(model, CUDA, SETTINGS, PROGRAM) == [
        *(f"{PROGRAM}/bin/trtllm-serve", "/srv/models/qwen"),
        *("--host", "127.0.0.1", "--port", "8105", "--extra_llm_api_options", TRTLLM_OPTIONS),
        *("--tp_size", "2", "--max_batch_size", "64", "--trust_remote_code"),
    ]
    hub = replace(model, source="hf:org/qwen@0123abc", gpus=(0,), args={})
    words = argv(hub, CUDA, SETTINGS, PROGRAM)
    assert words[1:4] == ["org/qwen", "--revision", "0123abc"]
    assert "--tp_size" not in words


@pytest.mark.parametrize("flag", ["extra-llm-api-options", "config"])
def test_options_of_the_operators_own_take_the_place_of_the_roles(flag: str) -> None:
    words = argv(Model(**FIELDS, args={flag: "/srv/a-b.yaml"}), CUDA, SETTINGS, PROGRAM)
    assert TRTLLM_OPTIONS not in words
    assert words[-2:] == ["--" + flag.replace("-", "_"), "/srv/a-b.yaml"]


def test_its_workers_stay_on_loopback() -> None:
    values = environment(Model(**FIELDS), CUDA, PROGRAM)
    assert {values[name] for name in values if name.startswith("OMPI_MCA")} == {"lo"}
    assert values["NCCL_SOCKET_IFNAME"] == "lo"
    assert values["TRITON_CACHE_DIR"].startswith("/var/lib/farrier/engines/qwen/1.2.1-abcdef01/")


@pytest.mark.parametrize(
    ("fields", "field", "told"),
    [
        ({"name": "coder"}, "name", "after its source: 'qwen'"),
        ({"name": "coder", "source": "hf:org/qwen@main"}, "name", "after its source: 'org/qwen'"),
        ({"args": {"tp-size": 4}}, "gpus", "set args={'tp-size': 2}"),
        ({"args": {"tensor-parallel-size": 2}}, "args.tensor-parallel-size", "tp-size"),
        ({"args": {"port": 1}}, "args.port", "field port"),
    ],
)
def test_what_the_inventory_may_not_say(fields: dict[str, Any], field: str, told: str) -> None:
    assert told in problems(**fields)[f"models[0].{field}"]


def test_what_it_may_say() -> None:
    assert problems() == problems(args={"tp-size": 1, "pp-size": 2}) == {}
    named = {"name": "org/qwen", "replica": "qwen", "source": "hf:org/qwen@main"}
    assert problems(**named) == {}
    own = ["/opt/trtllm/bin/trtllm-serve", "{path}", "--host", "{host}", "--port", "{port}"]
    assert problems(name="coder", command=own) == {}


def test_a_host_without_a_lock_of_it_is_refused(tmp_path: Path) -> None:
    spec = replace(CUDA, models=(Model(**FIELDS),))
    (program,) = wanted(spec, {}).programs
    assert (program.name, program.locked) == ("trtllm 1.2.1", False)
    (tmp_path / "cuda-cp312.txt").write_text("tensorrt-llm==1.2.1\n")
    (program,) = wanted(spec, {"trtllm_locks": str(tmp_path)}).programs
    assert program.locked


def test_its_wheels_come_from_where_they_are(tmp_path: Path) -> None:
    lock = tmp_path / "cuda-cp312.txt"
    settings = role.DEFAULTS.data() | {"trtllm_locks": str(tmp_path)}
    lock.write_text("tensorrt-llm==1.2.1\ntorch==2.9.1\n")
    own = dict(role.trtllm_environment("cuda", settings).sources.own_index)
    assert own["tensorrt-llm"] == own["tensorrt"] == "https://pypi.nvidia.com"
    assert "torch" not in own, "PyPI's"
    other = tmp_path / "other"
    other.mkdir()
    (other / "cuda-cp312.txt").write_text("tensorrt-llm==1.2.1\ntorch==2.9.1+cu130\n")
    settings |= {"trtllm_locks": str(other)}
    own = dict(role.trtllm_environment("cuda", settings).sources.own_index)
    assert own["torch"].endswith("/cu130")
