"""Both distributions built and installed, every lock's wheels downloaded (15 min, 6 GB).

The locks for CUDA are downloaded and checked against their hashes, not run: that takes a GPU.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from farrier.wheelhouse import Sources, Wheelhouse, fill

ROOT = Path(__file__).resolve().parents[2]
LOCKS = [*sorted((ROOT / "agent/locks").glob("*.txt")), *(ROOT / "roles/vllm/locks").glob("*.txt")]
TORCH_CPU = (("torch", "https://download.pytorch.org/whl/cpu"),)


def run(*command: str | Path) -> str:
    """What *command* printed; a failure shows what it said."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: f"{lock.parents[1].name}-{lock.stem}")
def test_every_lock_has_its_wheels(lock: Path, tmp_path: Path) -> None:
    python = re.sub(r".*cp3(\d+)", r"3.\1", lock.stem)
    sources = Sources(own_index=TORCH_CPU if lock.stem.startswith("cpu") else ())
    archive = fill(Wheelhouse(lock.stem, lock, python, sources), tmp_path)
    assert archive.stat().st_size > 1_000_000
    archive.unlink()


def test_the_agent_installs_from_its_wheel_and_runs(tmp_path: Path) -> None:
    uv = Path(sys.executable).parent / "uv"
    run(uv, "build", "--quiet", "--no-sources", "--wheel", "-o", tmp_path, ROOT / "agent")
    python = tmp_path / "venv/bin/python"
    run(uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv")
    lock = ROOT / f"agent/locks/cp3{sys.version_info.minor}.txt"
    run(uv, "pip", "sync", "--quiet", "--python", python, "--require-hashes", lock)
    wheel = next(tmp_path.glob("*.whl"))
    run(uv, "pip", "install", "--quiet", "--python", python, "--no-deps", wheel)
    assert run(tmp_path / "venv/bin/farrier-agent", "version").startswith("farrier-agent 0.")


def test_the_operators_wheel_has_what_the_roles_read(tmp_path: Path) -> None:
    uv = Path(sys.executable).parent / "uv"
    run(uv, "build", "--quiet", "--no-sources", "--wheel", "-o", tmp_path, ROOT)
    names = set(zipfile.ZipFile(next(tmp_path.glob("farrier-*.whl"))).namelist())
    read = [*ROOT.glob("roles/*/templates/*"), *ROOT.glob("roles/*/locks/*")]
    read += ROOT.glob("farrier/locks/*")
    assert {str(path.relative_to(ROOT)) for path in read} <= names
