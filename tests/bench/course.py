"""The lab that is measured on: brought up, given stand-in engines, and taken down again."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from farrier.lab import Lab
from tests.bench.models import STAND_IN
from tests.fakes.engine.packing import packed

__all__ = ["LAB", "ROOT", "course", "environment", "leaders"]

ROOT = Path(__file__).parents[2]
LAB = "bench"


def environment(vllm: Sequence[str] = ()) -> dict[str, str]:
    """What makes pyinfra work on this lab, with the real vLLM on the hosts *vllm*."""
    return {
        "FARRIER_ENV": "lab",
        "FARRIER_LAB": LAB,
        "FARRIER_LAB_MODELS": str(Path(__file__).with_name("models.py")),
        "FARRIER_BENCH_VLLM": ",".join(vllm),
    }


@contextmanager
def course(say: Callable[[str], None]) -> Iterator[Lab]:
    """The lab, up; taken down at the end unless FARRIER_KEEP_LAB=1."""
    lab = Lab.open(LAB, report=say)
    try:
        lab.up()
        engine = base64.b64encode(packed()).decode()
        for host in lab.hosts:
            if "gpu" in host.groups:
                lab.ssh(host.name, f"base64 -d | sudo tee {STAND_IN} >/dev/null", engine)
        yield lab
    finally:
        if os.environ.get("FARRIER_KEEP_LAB") != "1":
            lab.down()


def leaders(lab: Lab, hosts: Sequence[str] | None = None) -> list[int]:
    """The PIDs 1 of *hosts* of the lab, or of all that are up, as seen from here."""
    names = [host.name for host in lab.hosts] if hosts is None else hosts
    machines = {f"--machine={lab.definition.machine(name)}" for name in names}
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except (NotADirectoryError, FileNotFoundError, ProcessLookupError):
            continue
        if words[0].endswith("systemd-nspawn") and machines & set(words):
            children = (entry / "task" / entry.name / "children").read_text().split()
            found += [int(child) for child in children if _is_first(int(child))]
    if len(found) != len(machines):
        raise RuntimeError(f"of {len(machines)} hosts {len(found)} run: farrier lab status")
    return found


def _is_first(pid: int) -> bool:
    """Whether *pid* is PID 1 of its own namespace."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("NSpid:"))
    return line.split()[1:][-1:] == ["1"]
