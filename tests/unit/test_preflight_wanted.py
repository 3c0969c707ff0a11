"""What a host is meant to be, as far as a preflight knows it: from the inventory and the roles."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import roles.vllm
from farrier.facts.containers import CdiSpec
from farrier.facts.roots import Roots
from farrier.preflight.found import Case
from farrier.preflight.judge import judge
from farrier.preflight.wanted import ENGINE_CUDA, DriverWanted, wanted
from farrier.spec import HostSpec, Model, read_host
from tests.unit.preflight_hosts import BGE, HEALTHY, QWEN, SPEC

LOCKS = Path(roles.vllm.__file__).parent / "locks"


@pytest.mark.parametrize("file", sorted(LOCKS.glob("cuda-*.txt")), ids=lambda file: file.stem)
def test_the_engines_cuda_is_that_of_the_lock(file: Path) -> None:
    lock = file.read_text(encoding="utf-8")
    torch = re.search(r"^torch==(\S+)", lock, re.MULTILINE)
    assert torch is not None
    assert "+" not in torch[1], "a build of torch for something else than PyPI's CUDA"
    runtime = re.search(r"^nvidia-cuda-runtime==([0-9]+\.[0-9]+)", lock, re.MULTILINE)
    assert runtime is not None
    assert runtime[1] == ENGINE_CUDA["vllm"]


def test_the_role_brings_the_driver_that_the_inventory_names() -> None:
    data = {"nvidia_driver_source": "debian", "nvidia_driver_branch": "535"}
    driver = wanted(SPEC, data).driver
    assert driver.brings
    assert str(driver.release) == "535"
    assert not wanted(SPEC, data | {"nvidia_driver_source": "none"}).driver.brings
    exact = wanted(SPEC, data | {"nvidia_driver_version": "535.261.03-1~deb12u1"}).driver
    assert str(exact.release) == "535.261.03"


def test_nobody_brings_a_driver_to_a_host_without_gpus() -> None:
    cpu = HostSpec("gpu02", groups=("gpu",), accelerator="cpu")
    assert wanted(cpu, {}).driver == DriverWanted()
    assert wanted(HostSpec("gw01", groups=("monitor",)), {}).driver == DriverWanted()


def test_what_replicas_need() -> None:
    here = wanted(SPEC, {})
    assert here.gpus == 5
    assert here.engine_need is not None
    assert (here.engine_need[1], str(here.engine_need[2])) == ("13.0", "580.65.06")
    custom = Model("x", engine="custom", gpus=[7], command=["/bin/serve"])
    other = wanted(replace(SPEC, models=(custom,)), {})
    assert (other.gpus, other.engine_need) == (8, None)
    assert (
        wanted(replace(SPEC, models=(replace(QWEN, gpus=()), replace(BGE, gpus=()))), {}).gpus == 0
    )


def test_programs_that_will_be_installed() -> None:
    (program,) = wanted(SPEC, {}).programs
    assert program.path.startswith("/opt/farrier/vllm/")
    assert program.needs_mb > 10_000
    assert wanted(replace(SPEC, models=()), {}).programs == ()


def test_a_version_whose_lock_is_not_there_is_refused(tmp_path: Path) -> None:
    """Else the wheels of the role's own version would lie in a directory that says another."""
    (program,) = wanted(SPEC, {}).programs
    assert program.other == ""
    meant = wanted(SPEC, {"vllm_version": "0.31.0"})
    (reason,) = [
        one for one in judge(Case(meant, HEALTHY)).reasons if one.code == "engine-unlocked"
    ]
    locked = roles.vllm.DEFAULTS.data()["vllm_version"]
    assert "vllm 0.31.0 has no lock" in reason.message
    assert f"locks {locked}" in reason.message
    (tmp_path / "cuda-cp312.txt").write_text("torch==2.13.0\nvllm==0.31.0 \\\n")
    mine = {"vllm_version": "0.31.0", "vllm_locks": str(tmp_path)}
    (program,) = wanted(SPEC, mine).programs
    assert (program.locked, program.other) == (True, "")


def test_a_role_looks_after_containers_where_it_is_asked_for() -> None:
    assert not wanted(SPEC, {}).container_toolkit
    meant = wanted(SPEC, {"nvidia_container_toolkit": True})
    assert meant.container_toolkit
    assert HEALTHY.containers is not None
    stale = replace(HEALTHY.containers, cdi=(CdiSpec("/etc/cdi/nvidia.yaml", "570.195.03"),))
    verdict = judge(Case(meant, replace(HEALTHY, containers=stale)))
    assert [reason.code for reason in verdict.warnings if reason.code == "cdi-stale"]
    assert not [one for one in verdict.within("llm").reasons if one.code == "cdi-stale"]


def test_roots_of_the_inventory() -> None:
    spec, problems = read_host("gpu01", ["gpu"], {"roots": {"sys": "/srv/tree/sys"}})
    assert problems == []
    assert spec.roots == Roots(sys="/srv/tree/sys")


@pytest.mark.parametrize(
    ("roots", "told"),
    [
        ("/srv/tree", "must be a table"),
        ({"syss": "/srv/tree/sys"}, "did you mean"),
        ({"sys": "tree/sys"}, "absolute path"),
    ],
)
def test_roots_that_are_none(roots: object, told: str) -> None:
    _, problems = read_host("gpu01", ["gpu"], {"roots": roots})
    (problem,) = problems
    assert problem.field == "roots"
    assert told in problem.message
