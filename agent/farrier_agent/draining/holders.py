"""Who holds memory of a GPU, as NVML says. All of it may block."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Held", "HoldersError", "holders"]

_LISTS = (
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
)


class HoldersError(RuntimeError):
    """NVML does not say who holds the GPUs; the message says why."""


@dataclass(frozen=True)
class Held:
    """GPU *index*: bytes in use (without what the driver reserves), and by which processes.

    ``used_bytes`` is None where NVML does not say. ``processes`` maps a pid, of the first PID
    namespace, to its bytes, None where they are not told.
    """

    index: int
    used_bytes: int | None
    processes: dict[int, int | None]


def holders(
    indices: Sequence[int], *, library: str | None = None, deadline: float = 10.0
) -> list[Held]:
    """Ask NVML for the GPUs *indices* within *deadline* seconds.

    *library* is the path of libnvidia-ml.so.1 to use instead of the linker's choice. Raises
    :class:`HoldersError`.
    """
    answer: list[list[Held] | HoldersError] = []

    def ask() -> None:
        try:
            answer.append(_ask(indices, library))
        except HoldersError as error:
            answer.append(error)
        except Exception as error:  # pynvml's own, of no common kind: no thread dies unheard
            answer.append(HoldersError(f"NVML: {type(error).__name__}: {error}"))

    # a sick driver does not answer, and a thread that waits for it cannot be ended
    thread = threading.Thread(target=ask, name="NVML", daemon=True)
    thread.start()
    thread.join(deadline)
    if not answer:
        raise HoldersError(f"NVML does not answer within {deadline:g} s: the driver hangs")
    if isinstance(answer[0], HoldersError):
        raise answer[0]
    return answer[0]


def _ask(indices: Sequence[int], library: str | None) -> list[Held]:
    import pynvml  # noqa: PLC0415 - only with a GPU

    try:
        if library is not None:
            # pynvml takes no path, it opens the SONAME; the loader then finds this one loaded
            ctypes.CDLL(library)
        pynvml.nvmlInit()
    except (OSError, pynvml.NVMLError) as error:
        raise HoldersError(f"NVML cannot be used: {error}") from error
    try:
        return [_held(pynvml, index) for index in indices]
    finally:
        pynvml.nvmlShutdown()


def _held(nvml: Any, index: int) -> Held:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError as error:
        raise HoldersError(f"GPU {index}: {error}") from error
    processes: dict[int, int | None] = {}
    told = 0
    for name in _LISTS:
        try:
            found = getattr(nvml, name)(handle)
        except nvml.NVMLLibraryMismatchError:
            continue  # a function that this driver does not have
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_GPU_IS_LOST:
                raise HoldersError(f"GPU {index}: {error}") from error
            continue  # a kind of process that this GPU does not know
        told += 1
        processes |= {one.pid: one.usedGpuMemory for one in found}
    if not told:
        raise HoldersError(f"GPU {index}: NVML lists no processes on it")
    try:
        # the second version: the first counts what the driver reserves as used
        used = nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2).used
    except (nvml.NVMLError, nvml.NVMLLibraryMismatchError):
        used = None
    return Held(index, used, processes)
