"""Caches of engines' versions: whose are forgotten, asked of a real shell on a tree of files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from roles.vllm.caches import Forgotten

OLD, NOW, NEXT = "0.31.0-0a1b2c3d", "0.32.0-11223344", "0.33.0-99999999"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Two replicas with caches of two versions each; only one version is there."""
    for replica in ("tiny-1", "tiny 2"):
        for release in (OLD, NOW):
            (tmp_path / "engines" / replica / release / "vllm").mkdir(parents=True)
        for other in ("cache", "huggingface", "models-0a1b2c3d", "0.1-short", "9-zzzzzzzz"):
            (tmp_path / "engines" / replica / other).mkdir()
    (tmp_path / "engines" / "tiny-1" / "0.30.0-aaaaaaaa").symlink_to(tmp_path)
    (tmp_path / "programs" / "vllm" / NOW).mkdir(parents=True)
    for place in ("units", "previous"):
        (tmp_path / place).mkdir()
    return tmp_path


def forgotten(host: Path, release: str = NEXT) -> list[str]:
    places = [str(host / name) for name in ("engines", "programs", "units", "previous")]
    command = Forgotten().command(release, *places)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return Forgotten().process(done.stdout.splitlines())


def test_a_version_that_is_gone_leaves_no_caches(host: Path) -> None:
    assert forgotten(host) == [f"{host}/engines/tiny 2/{OLD}", f"{host}/engines/tiny-1/{OLD}"]


@pytest.mark.parametrize("place", ["units/engine-tiny-1.service", "previous/engine-tiny-1.service"])
def test_what_a_unit_runs_from_or_would_go_back_to_is_kept(host: Path, place: str) -> None:
    (host / place).write_text(f"ExecStart={host}/programs/vllm/{OLD}/bin/python -m x\n")
    assert forgotten(host) == []


def test_another_engine_s_version_keeps_its_own(host: Path) -> None:
    (host / "programs" / "transformers" / OLD).mkdir(parents=True)
    assert forgotten(host) == []


def test_the_version_that_is_about_to_be_there_keeps_its_own(host: Path) -> None:
    assert forgotten(host, OLD) == []


def test_a_host_without_engines_has_none(tmp_path: Path) -> None:
    assert forgotten(tmp_path) == []
