"""The families about the agent's own processes, read from /proc by prometheus_client.

``process_*`` is the agent, under the names that every Prometheus client has for itself; the process
that calls NVML is another, under a name of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from prometheus_client import ProcessCollector

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
        yield one, own.get(one.name, [])
    other = _read(proc, str(worker)) if worker is not None else {}
    for name, one in WORKER.items():
        yield one, other.get(name, [])


def _read(proc: Path, pid: str) -> dict[str, list[Sample]]:
    return {
        sample.name: [((), sample.value)]
        for metric in _collector(proc, pid).collect()
        for sample in metric.samples
    }


@lru_cache(maxsize=4)
def _collector(proc: Path, pid: str) -> ProcessCollector:
    # Kept, for each one that is made reads /proc/stat for the boot time, which takes long with
    # many cores. No registry: nothing is to be registered anywhere.
    return ProcessCollector(pid=lambda: pid, proc=str(proc), registry=None)
