"""The families about the agent's own processes, read from /proc.

``process_*`` is the agent, under the names that every Prometheus client has for itself; the process
that calls NVML is another, under a name of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from farrier_agent.metrics.family import Family, Sample, family

__all__ = ["FAMILIES", "samples"]

AGENT = (
    family("process_virtual_memory_bytes", "", "Virtual memory of the agent, in bytes.", "agent"),
    family("process_resident_memory_bytes", "", "Resident memory of the agent, in bytes.", "agent"),
    family(
        "process_start_time_seconds",
        "",
        "When the agent was started, in seconds since the epoch.",
        "agent",
    ),
    family("process_cpu_seconds_total", "", "CPU time that the agent used, in seconds.", "agent"),
    family("process_open_fds", "", "Open file descriptors of the agent.", "agent"),
    family("process_max_fds", "", "How many file descriptors the agent may open.", "agent"),
)
WORKER = {
    "process_resident_memory_bytes": family(
        "farrier_nvml_worker_resident_memory_bytes",
        "",
        "Resident memory of the process that calls NVML, in bytes.",
        "gpu agent",
    ),
    "process_cpu_seconds_total": family(
        "farrier_nvml_worker_cpu_seconds_total",
        "",
        "CPU time that the process used that calls NVML, in seconds; a new one begins at 0.",
        "gpu agent",
    ),
}

FAMILIES: tuple[Family, ...] = (*AGENT, *WORKER.values())


def samples(proc: Path, worker: int | None) -> Iterator[tuple[Family, list[Sample]]]:
    """What *proc* says of the agent, and of the process *worker* where there is one, by family."""
    own = _read(proc, "self")
    for one in AGENT:
        yield one, [((), own.get(one.name))]
    other = _read(proc, str(worker)) if worker is not None else {}
    for name, one in WORKER.items():
        yield one, [((), other.get(name))]


def _read(proc: Path, pid: str) -> dict[str, float]:
    """What *proc* says of *pid* (proc(5)), by the names that Prometheus' clients have for it.

    What cannot be read is absent.
    """
    found: dict[str, float] = {}
    with suppress(OSError, ValueError, IndexError):
        # behind the name of the program, in which there may be anything
        words = (proc / pid / "stat").read_bytes().rpartition(b")")[2].split()
        ticks = float(os.sysconf("SC_CLK_TCK"))
        found = {
            "process_cpu_seconds_total": (int(words[11]) + int(words[12])) / ticks,
            "process_virtual_memory_bytes": float(words[20]),
            "process_resident_memory_bytes": float(int(words[21]) * os.sysconf("SC_PAGESIZE")),
        }
        found["process_start_time_seconds"] = int(words[19]) / ticks + _boot_time(proc)
    with suppress(OSError, ValueError, IndexError):
        found["process_open_fds"] = float(sum(1 for _ in os.scandir(proc / pid / "fd")))
        limits = (proc / pid / "limits").read_text().partition("Max open files")[2]
        found["process_max_fds"] = float(limits.split()[0])
    return found


@lru_cache(maxsize=4)
def _boot_time(proc: Path) -> float:
    """Seconds since the epoch. Kept: with many cores it takes long to read. Raises ValueError."""
    with (proc / "stat").open("rb") as lines:
        for line in lines:
            if line.startswith(b"btime "):
                return float(line.split()[1])
    raise ValueError(f"{proc}/stat has no btime")
