"""One conversation with NVML through nvidia-ml-py. Everything here may block."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from farrier_agent.nvml import values
from farrier_agent.nvml.errors import NvmlError, kind_of
from farrier_agent.status import Gpu, Gpus

__all__ = ["NvmlError", "Session"]

T = TypeVar("T")

LOST_RETRY = 60.0
"""Seconds in which a GPU that NVML called lost is not touched again."""


class _LostError(Exception):
    """The GPU fell off the bus."""


@dataclass(frozen=True)
class Known:
    """A GPU that was identified."""

    index: int
    handle: Any
    uuid: str
    pci_bus_id: str | None


@dataclass
class _Device:
    handle: Any
    identity: Gpu
    lost_until: float | None = None


class Session:
    """NVML from its initialisation to the first error that makes it useless, and again.

    *library* is the path of libnvidia-ml.so.1 to use instead of the linker's choice. *calling* is
    told the function and the index of the GPU, -1 for none, before each call.
    """

    def __init__(
        self,
        library: str | None = None,
        *,
        calling: Callable[[str, int], None] = lambda _function, _gpu: None,
        lost_retry: float = LOST_RETRY,
    ) -> None:
        self._calling = calling
        self._library = library
        self._lost_retry = lost_retry
        self._nvml: Any = None
        self._count = 0
        self._devices: dict[int, _Device] = {}
        self._versions: tuple[str | None, str | None] | None = None
        self._problems: list[str] = []

    @property
    def nvml(self) -> Any:
        """The binding, None while NVML is not open."""
        return self._nvml

    def known(self) -> tuple[Known, ...]:
        """The GPUs that were identified."""
        return tuple(
            Known(index, one.handle, one.identity.uuid, one.identity.pci_bus_id)
            for index, one in self._devices.items()
        )

    def read(self) -> Gpus:
        """All GPUs now. Raises :class:`NvmlError` when NVML cannot be used."""
        head = self.begin()
        gpus = tuple(self.readings(range(head.count)))
        return msgspec.structs.replace(self.end(), devices=gpus)

    def begin(self) -> Gpus:
        """Count and versions. Raises :class:`NvmlError`."""
        self._problems = []
        if self._nvml is None:
            self._open()
        with self._errors():
            if self._versions is None:
                self._versions = (
                    self._value("the host", "nvmlSystemGetDriverVersion"),
                    self._value("the host", "nvmlSystemGetNVMLVersion"),
                )
            count = self._ask("nvmlDeviceGetCount")
            if count != self._count:
                self._devices.clear()  # indices and handles may mean other GPUs now
                self._count = count
        return self.end()

    def readings(self, order: Sequence[int], skip: Collection[int] = ()) -> Iterator[Gpu]:
        """The GPUs of these indices. Raises :class:`NvmlError`."""
        for index in order:
            if index in skip:
                continue
            with self._errors():
                gpu = self._read_gpu(index)
            if gpu is not None:
                yield gpu

    def end(self) -> Gpus:
        """What went wrong."""
        driver, version = self._versions or (None, None)
        return Gpus(
            count=self._count,
            driver_version=driver,
            nvml_version=version,
            problems=tuple(self._problems),
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        nvml = self._nvml
        try:
            yield
        except nvml.NVMLError as error:
            words = self._close(self._words(error))
            raise NvmlError(words, kind=kind_of(error.value), code=error.value) from error
        except _LostError as error:
            raise NvmlError(self._close("a call that concerns no GPU says GPU is lost")) from error

    def _open(self) -> None:
        import pynvml  # noqa: PLC0415 - 3 MiB that only a host with a GPU pays for

        if self._library is not None:
            # pynvml takes no path, it opens the SONAME; the loader then finds this one loaded
            try:
                ctypes.CDLL(self._library)
            except OSError as error:
                raise NvmlError(f"NVML cannot be loaded: {error}", kind="no_library") from error
        self._calling("nvmlInit", -1)
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            words, kind = f"nvmlInit: {self._words(error, pynvml)}", kind_of(error.value)
            raise NvmlError(words, kind=kind, code=error.value, call="nvmlInit") from error
        self._nvml = pynvml

    def _close(self, because: str) -> str:
        nvml, self._nvml = self._nvml, None
        self._devices.clear()
        self._versions = None
        self._calling("nvmlShutdown", -1)
        with suppress(nvml.NVMLError):  # NVML is of no use any more, and *because* says so
            nvml.nvmlShutdown()
        return because

    def _read_gpu(self, index: int) -> Gpu | None:
        device = self._devices.get(index)
        if device and device.lost_until is not None and time.monotonic() < device.lost_until:
            return device.identity
        try:
            if device is None or device.lost_until is not None:
                self._identify(index)  # after a loss it may have been reset: ask who is there
            device = self._devices.get(index)
            if device is None:
                return None
            return self._measure(device) if device.lost_until is None else device.identity
        except _LostError:
            if device is None:
                self._problems.append(f"GPU {index} is lost, and its UUID is not known")
                return None
            device.lost_until = time.monotonic() + self._lost_retry
            device.identity = _without_values(device.identity)
            return device.identity

    def _identify(self, index: int) -> None:
        who = f"GPU {index}"
        handle = self._value(who, "nvmlDeviceGetHandleByIndex", index)
        uuid = self._value(who, "nvmlDeviceGetUUID", handle) if handle is not None else None
        if uuid is None:
            self._problems.append(f"{who} does not give its UUID")
            return
        pci = self._value(who, "nvmlDeviceGetPciInfo", handle)
        identity = Gpu(
            uuid=uuid,
            index=index,
            name=self._value(who, "nvmlDeviceGetName", handle),
            pci_bus_id=_text(pci.busId) if pci else None,
            up=True,
        )
        self._devices[index] = _Device(handle, identity)

    def _measure(self, device: _Device) -> Gpu:
        nvml, handle, identity = self._nvml, device.handle, device.identity
        who = f"GPU {identity.index}"

        def number(convert: Callable[[int], T | None], function: str, *args: object) -> T | None:
            return self._plausible(
                who, function, convert, self._value(who, function, handle, *args)
            )

        use = self._value(who, "nvmlDeviceGetUtilizationRates", handle)
        return Gpu(
            uuid=identity.uuid,
            index=identity.index,
            name=identity.name,
            pci_bus_id=identity.pci_bus_id,
            up=True,
            **self._memory(who, handle),
            utilization_ratio=self._plausible(
                who, "utilization", values.ratio, use.gpu if use else None
            ),
            memory_busy_ratio=self._plausible(
                who, "memory utilization", values.ratio, use.memory if use else None
            ),
            temperature_celsius=number(
                values.celsius, "nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU
            ),
            power_watts=number(values.watts, "nvmlDeviceGetPowerUsage"),
            power_limit_watts=number(values.watts, "nvmlDeviceGetEnforcedPowerLimit"),
            graphics_clock_hertz=number(
                values.hertz, "nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_GRAPHICS
            ),
            sm_clock_hertz=number(values.hertz, "nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            memory_clock_hertz=number(values.hertz, "nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
        )

    def _memory(self, who: str, handle: Any) -> dict[str, Any]:
        # the second version: the first counts what the driver reserves as used
        found = self._value(who, "nvmlDeviceGetMemoryInfo", handle, self._nvml.nvmlMemory_v2)
        if found is None:
            return {}
        fields = values.memory(found.total, found.used, found.free, found.reserved)
        if not fields:
            self._problems.append(f"{who}: its memory sizes contradict one another")
        return fields

    def _plausible(
        self, who: str, what: str, convert: Callable[[int], T | None], raw: int | None
    ) -> T | None:
        value = None if raw is None else convert(raw)
        if value is None and raw is not None:
            self._problems.append(f"{who}: {what} is out of range")
        return value

    def _value(self, who: str, function: str, *args: object) -> Any:
        """What *function* gives, None when it cannot. Raises for a lost GPU or a lost driver."""
        nvml = self._nvml
        try:
            return self._ask(function, *args, who=who)
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_GPU_IS_LOST:
                raise _LostError from error
            if error.value in {
                nvml.NVML_ERROR_UNINITIALIZED,
                nvml.NVML_ERROR_DRIVER_NOT_LOADED,
                nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
            }:
                raise
            if error.value not in {
                nvml.NVML_ERROR_NOT_SUPPORTED,
                nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            }:
                self._problems.append(f"{who}: {function}: {error}")
            return None

    def _ask(self, function: str, *args: object, who: str = "the host") -> Any:
        self._calling(function, int(who[4:]) if who.startswith("GPU ") else -1)
        return getattr(self._nvml, function)(*args)

    def _words(self, error: Any, nvml: Any = None) -> str:
        nvml = nvml or self._nvml
        if error.value == nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
            return (
                "the driver was upgraded under the running kernel module: reboot the host, or "
                "reload the modules and restart farrier-agent"
            )
        if error.value == nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            return "libnvidia-ml.so.1 is not installed"
        return str(error)


def _without_values(gpu: Gpu) -> Gpu:
    return Gpu(uuid=gpu.uuid, index=gpu.index, name=gpu.name, pci_bus_id=gpu.pci_bus_id, up=False)


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
