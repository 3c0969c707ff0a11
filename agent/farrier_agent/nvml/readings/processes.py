"""Processes that hold the GPU."""

from __future__ import annotations

import ctypes
from typing import Any, Literal

from farrier_agent.gpus import GpuProcess
from farrier_agent.nvml.probe import Probe

__all__ = ["fast", "slow"]

Kind = Literal["compute", "graphics", "mps"]
Held = dict[int, int | None]
"""Bytes by process."""

_FUNCTIONS: dict[Kind, str] = {
    "compute": "nvmlDeviceGetComputeRunningProcesses",
    "graphics": "nvmlDeviceGetGraphicsRunningProcesses",
    "mps": "nvmlDeviceGetMPSComputeRunningProcesses",
}
ROOM = 64
"""Processes that one call has room for; with more it takes a second."""
NOT_AVAILABLE = 2**64 - 1


def slow(probe: Probe) -> dict[str, Any]:
    """Nothing to show: graphics processes and clients of MPS, for :func:`fast`."""
    probe.kept["graphics"] = _held(probe, "graphics")
    probe.kept["mps"] = _held(probe, "mps")
    return {}


def fast(probe: Probe) -> dict[str, Any]:
    """All processes. One in several lists, as a client of MPS is, is told once."""
    compute = _held(probe, "compute")
    if compute is None:
        return {"processes": None}
    kinds: dict[Kind, Held] = {
        "mps": probe.kept.get("mps") or {},
        "compute": compute,
        "graphics": probe.kept.get("graphics") or {},
    }
    found: dict[int, GpuProcess] = {}
    for kind, held in kinds.items():
        for pid, size in held.items():
            memory = compute.get(pid, size)
            found.setdefault(pid, GpuProcess(pid=pid, kind=kind, memory_bytes=memory))
    return {"processes": tuple(found[pid] for pid in sorted(found))}


def _held(probe: Probe, kind: Kind) -> Held | None:
    function = _FUNCTIONS[kind]
    room = ROOM
    for _ in range(3):  # more may have come by the second call
        count = ctypes.c_uint(room)
        infos = (probe.nvml.c_nvmlProcessInfo_v2_t * room)()
        code = probe.pointer(function, ctypes.byref(count), infos, suffix="_v3")
        if code == 0:
            return _sane(probe, infos[: min(count.value, room)])
        if code != 7:
            return None
        room = min(count.value * 2 + 5, 2**16)
    probe.failed(function, 7)
    return None


def _sane(probe: Probe, infos: Any) -> Held:
    held: Held = {}
    for info in infos:
        pid = probe.value("process_pid", info.pid)
        raw = info.usedGpuMemory
        size = None if raw == NOT_AVAILABLE else probe.value("process_memory_bytes", raw)
        if pid is not None:
            held[pid] = size
    return held
