"""The families about errors of a GPU's memory, and what the driver wants done about the GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from farrier_agent.gpus import Gpu, RemappedRows
from farrier_agent.metrics.family import Family, Sample, family, one_hot

__all__ = ["FAMILIES", "RECOVERY_ACTIONS", "samples"]

RECOVERY_ACTIONS = (
    "none",
    "gpu_reset",
    "node_reboot",
    "drain_p2p",
    "drain_and_reset",
    "imex_domain",
    "bus_reset",
    "system_reboot",
    "unknown",
)
"""What ``farrier_gpu_recovery_action`` is one-hot over."""

VOLATILE = family(
    "farrier_gpu_ecc_errors_total",
    "uuid kind memory",
    "ECC errors since the driver was loaded. kind: corrected or uncorrected; memory: dram or sram, "
    "or all on a GPU that does not tell them apart.",
    "gpu",
)
LIFETIME = family(
    "farrier_gpu_ecc_lifetime_errors_total",
    "uuid kind memory",
    "ECC errors since the GPU was made; labels as those of farrier_gpu_ecc_errors_total.",
    "gpu",
)
ROWS = family(
    "farrier_gpu_remapped_rows",
    "uuid kind",
    "Rows of memory exchanged for spare ones after corrected or uncorrected errors.",
    "gpu",
)
PENDING = family(
    "farrier_gpu_row_remap_pending",
    "uuid",
    "Whether (1) a row of memory is exchanged at the next reset of the GPU.",
    "gpu",
)
FAILED = family(
    "farrier_gpu_row_remap_failed",
    "uuid",
    "Whether (1) a row of memory could not be exchanged.",
    "gpu",
)
ACTION = family(
    "farrier_gpu_recovery_action",
    "uuid action",
    "What the driver wants done about the GPU: 1 for the action; unknown: one that this agent does "
    "not know.",
    "gpu",
)

FAMILIES: tuple[Family, ...] = (VOLATILE, LIFETIME, ROWS, PENDING, FAILED, ACTION)


def samples(devices: Sequence[Gpu]) -> Iterator[tuple[Family, list[Sample]]]:
    """What there is of *devices*, by family."""
    yield VOLATILE, [sample for gpu in devices for sample in _errors(gpu, "volatile")]
    yield LIFETIME, [sample for gpu in devices for sample in _errors(gpu, "aggregate")]
    rows = [(gpu.uuid, gpu.remapped_rows) for gpu in devices if gpu.remapped_rows]
    yield ROWS, [sample for uuid, one in rows for sample in _rows(uuid, one)]
    yield PENDING, [((uuid,), one.pending) for uuid, one in rows]
    yield FAILED, [((uuid,), one.failed) for uuid, one in rows]
    yield (
        ACTION,
        [
            sample
            for gpu in devices
            for sample in one_hot((gpu.uuid,), RECOVERY_ACTIONS, _known(gpu.recovery_action))
        ],
    )


def _errors(gpu: Gpu, scope: Literal["volatile", "aggregate"]) -> Iterator[Sample]:
    """By memory where that is known: beside it a sum would count every error twice."""
    counts = [one for one in gpu.ecc_errors if one.scope == scope]
    apart = {one.kind for one in counts if one.memory != "all"}
    for one in counts:
        if one.memory != "all" or one.kind not in apart:
            yield (gpu.uuid, one.kind, one.memory), one.count


def _rows(uuid: str, one: RemappedRows) -> list[Sample]:
    return [((uuid, "corrected"), one.corrected), ((uuid, "uncorrected"), one.uncorrected)]


def _known(action: str | None) -> str | None:
    return action if action is None or action in RECOVERY_ACTIONS else "unknown"
