"""The families about the process that talks to NVML: ``farrier_nvml…``."""

from __future__ import annotations

from collections.abc import Iterator

from farrier_agent.gpus import Nvml
from farrier_agent.metrics.family import Family, Sample, family, one_hot

__all__ = ["FAMILIES", "PROBLEMS", "samples"]

PROBLEMS = (
    "hangs",
    "mismatch",
    "not_loaded",
    "no_library",
    "no_permission",
    "released",
    "failed",
)
"""Why NVML is not read; ``farrier_nvml_problem`` is one-hot over them."""

UP = family("farrier_nvml_up", "", "Whether NVML is read (1).", "gpu")
PROBLEM = family(
    "farrier_nvml_problem",
    "kind",
    "Why NVML is not read: 1 for the reason. mismatch: driver and library are of two versions.",
    "gpu",
)
RELEASED = family(
    "farrier_nvml_released",
    "",
    "Whether (1) the agent let go of the driver because somebody asked it to.",
    "gpu",
)
STUCK = family(
    "farrier_nvml_worker_stuck",
    "",
    "Whether (1) a process that called NVML does not even end when it is killed.",
    "gpu",
)
STARTED = family(
    "farrier_nvml_workers_started_total",
    "",
    "Processes that were started to read NVML since the agent started.",
    "gpu",
)

FAMILIES: tuple[Family, ...] = (UP, PROBLEM, RELEASED, STUCK, STARTED)


def samples(nvml: Nvml) -> Iterator[tuple[Family, list[Sample]]]:
    """How the worker fares, by family. Before the first one was started nothing is known."""
    if nvml.workers or nvml.kind:
        yield UP, [((), nvml.kind is None)]
        yield PROBLEM, one_hot((), PROBLEMS, nvml.kind or "")
        yield RELEASED, [((), nvml.kind == "released")]
    yield STUCK, [((), nvml.stuck)]
    yield STARTED, [((), nvml.workers)]
