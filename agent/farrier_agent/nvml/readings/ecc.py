"""Errors of memory: ECC, rows remapped, pages retired."""

from __future__ import annotations

from typing import Any, Literal

from farrier_agent.gpus import EccCount, RemappedRows
from farrier_agent.nvml.probe import Probe

__all__ = ["fast", "slow"]

Kind = Literal["corrected", "uncorrected"]
Scope = Literal["volatile", "aggregate"]
Memory = Literal["dram", "sram"]

_KINDS: dict[Kind, int] = {"corrected": 0, "uncorrected": 1}  # NVML_MEMORY_ERROR_TYPE_*
_SCOPES: dict[Scope, int] = {"volatile": 0, "aggregate": 1}  # NVML_*_ECC
_MEMORIES: dict[Memory, int] = {"dram": 2, "sram": 7}  # NVML_MEMORY_LOCATION_*


def slow(probe: Probe) -> dict[str, Any]:
    """Whether ECC is on, retired pages (before Ampere), and the less urgent counts."""
    mode = probe.ask("nvmlDeviceGetEccMode")
    probe.kept["ecc_errors"] = (
        *_counts(probe, "corrected", "volatile"),
        *_counts(probe, "corrected", "aggregate"),
        *_counts(probe, "uncorrected", "aggregate"),
    )
    retired = [
        probe.value("retired_pages", probe.field(name))
        for name in ("retired_corrected", "retired_uncorrected")
    ]
    return {
        "ecc_enabled": probe.value("ecc_enabled", mode[0] if mode else None),
        "retired_pages": None if None in retired else sum(retired),
        "retired_pages_pending": probe.value(
            "retired_pages_pending", probe.field("retired_pages_pending")
        ),
    }


def fast(probe: Probe) -> dict[str, Any]:
    """Errors that were not corrected, the SRAM threshold and rows: what a board is judged by."""
    sram = probe.fill("nvmlDeviceGetSramEccErrorStatus", probe.nvml.c_nvmlEccSramErrorStatus_v1_t())
    return {
        "ecc_errors": (*_counts(probe, "uncorrected", "volatile"), *probe.kept["ecc_errors"]),
        "sram_threshold_exceeded": probe.value(
            "sram_threshold_exceeded", sram.bThresholdExceeded if sram else None
        ),
        "remapped_rows": _rows(probe),
    }


def _counts(probe: Probe, kind: Kind, scope: Scope) -> tuple[EccCount, ...]:
    found = []
    function, codes = "nvmlDeviceGetMemoryErrorCounter", (_KINDS[kind], _SCOPES[scope])
    for memory, location in _MEMORIES.items():
        count = probe.value("ecc_errors", probe.ask(function, *codes, location))
        if count is not None:
            found.append(EccCount(kind=kind, scope=scope, memory=memory, count=count))
    if not any(probe.supports(function, *codes, location) for location in _MEMORIES.values()):
        count = probe.value("ecc_errors", probe.ask("nvmlDeviceGetTotalEccErrors", *codes))
        if count is not None:
            found.append(EccCount(kind=kind, scope=scope, memory="all", count=count))
    return tuple(found)


def _rows(probe: Probe) -> RemappedRows | None:
    names = ("remapped_corrected", "remapped_uncorrected", "row_remap_pending", "row_remap_failed")
    if any((name, 0) in probe.batch for name in names):
        raw: Any = [probe.field(name) for name in names]
    else:
        raw = probe.ask("nvmlDeviceGetRemappedRows")
    if raw is None or None in raw:
        return None
    corrected = probe.value("remapped_rows", raw[0])
    uncorrected = probe.value("remapped_rows", raw[1])
    pending = probe.value("row_remap_pending", raw[2])
    failed = probe.value("row_remap_failed", raw[3])
    if corrected is None or uncorrected is None or pending is None or failed is None:
        return None
    return RemappedRows(
        corrected=corrected, uncorrected=uncorrected, pending=pending, failed=failed
    )
