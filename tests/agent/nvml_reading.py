"""Readings of the fake NVML by the real session, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from farrier_agent.gpus import Gpu, Gpus

MEMORY = {
    "memory_total_bytes",
    "memory_used_bytes",
    "memory_free_bytes",
    "memory_reserved_bytes",
}
USE = {"utilization_ratio", "memory_busy_ratio"}
BASE = (
    "all.threshold.0 92;all.threshold.1 89;all.fans 2;all.fan.0 40;all.fan.1 50;"
    "all.processes 4711:1000;all.fv.29 1;all.fv.30 2;all.fv.31 1;"
)
"""An H200 with what only other GPUs have, so that every field has a value to lose."""

PROGRAM = """
import os, sys, msgspec
from farrier_agent.nvml.session import NvmlError, Session
options = msgspec.json.decode(sys.argv[3])
calls = []
def new(): return Session(sys.argv[1], calling=lambda *call: calls.append(call), **options)
one = new()
for line in sys.stdin:
    fresh, state = line[0] == "1", line[1:]
    with open(sys.argv[2] + ".new", "wb") as out:
        out.write(state.replace(";", "\\n").encode("latin-1"))
    os.replace(sys.argv[2] + ".new", sys.argv[2])
    if fresh:
        one.close()
        one = new()
    calls.clear()
    try: said = {"gpus": one.read()}
    except NvmlError as error:
        said = {"words": str(error), "kind": error.kind, "code": error.code, "call": error.call}
    print(msgspec.json.encode({**said, "calls": calls}).decode(), flush=True)
"""


class Answer(msgspec.Struct):
    """What came of one reading: GPUs, or why NVML is of no use; and the calls that were made."""

    gpus: Gpus | None = None
    words: str = ""
    kind: str = ""
    code: int | None = None
    call: str = ""
    calls: list[tuple[str, int]] = []

    @property
    def all(self) -> Gpus:
        assert self.gpus is not None, self.words
        return self.gpus

    @property
    def gpu(self) -> Gpu:
        return self.all.devices[0]

    def times(self, function: str) -> int:
        """How often *function* was called."""
        return Counter(name for name, _ in self.calls)[function]


class Reader(NamedTuple):
    """Reads NVML in the states that it is given."""

    library: Path
    directory: Path

    def __call__(
        self, *states: str, fresh: int = 0, lost_retry: float = 0.0, slow_every: float = 3600.0
    ) -> Sequence[Answer]:
        """Answers in *states* (lines divided by semicolons) of one session, or, with *fresh*, of
        a new one for each so many states.
        """
        path = self.directory / "state"
        options = msgspec.json.encode({"lost_retry": lost_retry, "slow_every": slow_every})
        anew = [bool(fresh) and at % fresh == 0 for at in range(len(states))]
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM, self.library, path, options],
            input="".join(f"{new:d}{state};\n" for new, state in zip(anew, states, strict=True)),
            env={**os.environ, "FAKE_NVML_STATE": str(path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        lines = result.stdout.splitlines()
        answers = [msgspec.json.decode(line, type=Answer) for line in lines]
        assert len(answers) == len(states)
        return answers


def differing(one: Gpu, other: Gpu) -> set[str]:
    """The names of the fields in which two readings of a GPU differ."""
    names = one.__struct_fields__
    return {name for name in names if getattr(one, name) != getattr(other, name)}


def absent(gpu: Gpu, names: set[str]) -> bool:
    """*gpu* has none of these fields."""
    return all(getattr(gpu, name) in {None, ()} for name in names)
