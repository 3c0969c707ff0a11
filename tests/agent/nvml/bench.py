"""NVML workers under test: the real binding, the real process, the fake library."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from farrier_agent.collectors.gpu import GpuError
from farrier_agent.gpus import Gpu, Gpus
from farrier_agent.nvml.keeper import NvmlWorker

__all__ = ["FOREVER", "Bench", "Clock", "failure", "until"]

T = TypeVar("T")

FOREVER = "3600000"
"""Milliseconds that a call hangs; no test waits for its end."""

PATIENCE = 60.0


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def until(question: Callable[[], Awaitable[T | None]]) -> T:
    """The first answer to *question* that is true."""
    end = time.monotonic() + PATIENCE
    while True:
        answer = await question()
        if answer:
            return answer
        assert time.monotonic() < end, f"last answer: {answer!r}"
        await asyncio.sleep(0.02)


class Bench:
    """A worker, its clock, and the state of its library."""

    def __init__(self, library: Path, root: Path, state: str = "count 4", **more: float) -> None:
        self.library = library
        self.state_path = root / "nvml.state"
        self.log_path = root / "calls"
        self.clock = Clock()
        self.put(state)
        self.worker = NvmlWorker(str(library), tick=5.0, clock=self.clock, **more)

    def put(self, state: str) -> None:
        """Replace the state of NVML; lines are divided by semicolons too."""
        fresh = self.state_path.with_suffix(".new")
        fresh.write_text(state.replace(";", "\n") + f"\nlog {self.log_path}\n")
        fresh.replace(self.state_path)

    async def read(self, deadline: float = 20.0) -> Gpus:
        return await self.worker.read(deadline)

    @property
    def pid(self) -> int:
        pid = self.worker.nvml.pid
        assert pid is not None
        return pid

    def calls(self) -> list[str]:
        """The calls that NVML got, as ``function gpu``."""
        if not self.log_path.exists():
            return []
        return [line.split(" ", 1)[1] for line in self.log_path.read_text().splitlines()]

    def calls_on(self, gpu: int) -> list[str]:
        return [call.split()[0] for call in self.calls() if call.endswith(f" {gpu}")]


def up(gpus: Gpus) -> list[bool]:
    return [gpu.up for gpu in gpus.devices]


def at(gpus: Gpus, index: int) -> Gpu:
    return next(gpu for gpu in gpus.devices if gpu.index == index)


def is_running(pid: int) -> bool:
    """It is there, and no zombie."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return words.rpartition(")")[2].split()[0] != "Z"


def open_devices(library: Path) -> list[int]:
    """Processes that have *library* mapped."""
    found = []
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            if str(library) in maps.read_text() and int(maps.parent.name) != os.getpid():
                found.append(int(maps.parent.name))
        except OSError:
            continue
    return found


async def failure(bench: Bench, deadline: float = 20.0) -> GpuError:
    """Why the reading fails, which it has to."""
    with pytest.raises(GpuError) as caught:
        await bench.read(deadline)
    return caught.value
