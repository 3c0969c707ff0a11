"""XIDs as NVML's events tell them, in a thread of the NVML worker.

NVML cannot tell them all: not those after which nobody answers, 79, 119 and 120 among them
(NVIDIA/DCGM#162), so the kernel log counts first. These are for hosts whose log cannot be read.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from farrier_agent.gpus import XidEvent

__all__ = ["Listener"]

WAIT = 5.0
"""Seconds that one wait for an event takes."""

LATE = 10.0
"""Seconds after which any other call, or a wait beyond its time, hangs."""

LONGEST_PAUSE = 60.0


class Known(Protocol):
    """A GPU that was identified."""

    @property
    def index(self) -> int:
        """NVML's index."""

    @property
    def handle(self) -> Any:
        """NVML's handle."""

    @property
    def uuid(self) -> str:
        """Its UUID, from now on: when it is lost it can no longer be asked."""

    @property
    def pci_bus_id(self) -> str | None:
        """Its place."""


@dataclass(frozen=True)
class _Device:
    index: int
    handle: Any
    uuid: str
    pci_bus_id: str | None


class Listener:
    """Tells XIDs to *tell*, in its thread, from :meth:`watch` on until the process ends."""

    def __init__(self, tell: Callable[[XidEvent], None]) -> None:
        self._tell = tell
        self._problem: str | None = None
        self._devices: dict[int, _Device] = {}
        self._news = threading.Event()
        self._call = ("", 0.0)
        self._nvml: Any = None
        self._thread: threading.Thread | None = None

    def watch(self, nvml: Any, known: Iterable[Known]) -> None:
        """Listen to these GPUs from now on; registers anew where they are others than before."""
        devices = {
            _address(one.handle): _Device(one.index, one.handle, one.uuid, one.pci_bus_id)
            for one in known
        }
        if _names(devices) == _names(self._devices) or not devices:
            return
        self._nvml, self._devices = nvml, devices
        self._news.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._listen, name="xid", daemon=True)
            self._thread.start()

    def problem(self) -> tuple[str | None, bool]:
        """Why XIDs may be missing, and whether that is because a call hangs."""
        function, since = self._call
        if function and time.monotonic() - since > LATE + (WAIT if _is_wait(function) else 0):
            return f"XIDs from NVML: {function} hangs", True
        return self._problem, False

    def _listen(self) -> None:
        pause = 1.0
        while True:
            self._news.clear()
            devices = dict(self._devices)
            begun = time.monotonic()
            with suppress(self._nvml.NVMLError):  # told by then
                self._listen_to(devices)
            self._call = ("", 0.0)
            if not self._news.is_set():
                worked = time.monotonic() - begun > LONGEST_PAUSE
                pause = 1.0 if worked else min(2 * pause, LONGEST_PAUSE)
                self._news.wait(pause)

    def _listen_to(self, devices: dict[int, _Device]) -> None:
        """Until other GPUs are to be listened to. Raises NVMLError."""
        nvml = self._nvml
        events = None
        try:
            self._begin("nvmlEventSetCreate")
            events = nvml.nvmlEventSetCreate()
            for device in devices.values():
                self._register(device, events)
            self._problem = None
            while not self._news.is_set():
                self._begin("nvmlEventSetWait")
                with suppress(nvml.NVMLError_Timeout):
                    self._keep(nvml.nvmlEventSetWait_v2(events, int(WAIT * 1000)), devices)
        except nvml.NVMLError as error:
            self._problem = f"XIDs from NVML: {self._call[0]}: {error}"
            raise
        finally:
            if events is not None:
                self._begin("nvmlEventSetFree")
                with suppress(nvml.NVMLError):
                    nvml.nvmlEventSetFree(events)

    def _register(self, device: _Device, events: Any) -> None:
        nvml = self._nvml
        self._begin(f"nvmlDeviceRegisterEvents of GPU {device.index}")
        # where a GPU has no events (GeForce, MIG) or is lost, the others still have theirs
        with suppress(nvml.NVMLError_NotSupported, nvml.NVMLError_GpuIsLost):
            nvml.nvmlDeviceRegisterEvents(device.handle, nvml.nvmlEventTypeXidCriticalError, events)

    def _keep(self, data: Any, devices: dict[int, _Device]) -> None:
        if data.eventType != self._nvml.nvmlEventTypeXidCriticalError or not data.eventData:
            return  # XID 0 is none (leptonai/gpud#164)
        device = devices.get(_address(data.device))
        event = XidEvent(
            at=time.time(),
            xid=data.eventData,
            pci_bus_id=device.pci_bus_id if device else None,
            uuid=device.uuid if device else None,
            source="nvml",
        )
        self._tell(event)

    def _begin(self, function: str) -> None:
        self._call = (function, time.monotonic())


def _names(devices: dict[int, _Device]) -> set[tuple[int, str]]:
    return {(address, device.uuid) for address, device in devices.items()}


def _is_wait(function: str) -> bool:
    return function == "nvmlEventSetWait"


def _address(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0
