"""One conversation with NVML through nvidia-ml-py. Everything here may block.

What is read of a GPU stands in :mod:`farrier_agent.nvml.readings`; here is when: what does not
change once for each GPU, most of the rest in every reading, and a slow tier in between.
"""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from farrier_agent.gpus import Gpu, Gpus
from farrier_agent.nvml.device import Device, Known, identify
from farrier_agent.nvml.errors import NvmlError
from farrier_agent.nvml.probe import Library, LostError

__all__ = ["Known", "NvmlError", "Session"]

LOST_RETRY = 60.0
"""Seconds in which a GPU that NVML called lost is not touched again."""

SLOW_EVERY = 60.0
"""Seconds between two readings of the slow tier of a GPU."""


class Session:
    """NVML from its initialisation to the first error that makes it useless, and again.

    *library* is the path of libnvidia-ml.so.1 to use instead of the linker's choice. *calling* is
    told the function and the index of the GPU (-1 for none) right before every call, for whoever
    waits for it. A reading is :meth:`begin`, :meth:`readings` and :meth:`end`, or :meth:`read`.
    All raise :class:`NvmlError` when NVML as a whole cannot be used.
    """

    def __init__(
        self,
        library: str | None = None,
        *,
        calling: Callable[[str, int], None] | None = None,
        lost_retry: float = LOST_RETRY,
        slow_every: float = SLOW_EVERY,
    ) -> None:
        self.nvml: Any = None
        self._path = library
        self._calling = calling or self._remember
        self._last = ("", -1)
        self._lost_retry = lost_retry
        self._slow_every = slow_every
        self._library: Library | None = None
        self._host = Gpus(count=0)  # of the last beginning
        self._driver: tuple[int, ...] = ()
        self._devices: dict[int, Device] = {}
        self._problems: list[str] = []
        self._invalid: dict[str, int] = {}

    @property
    def calling(self) -> str:
        """The NVML call that was made last, in words, if nobody else is told."""
        function, index = self._last
        return f"{function} of GPU {index}" if index >= 0 else f"{function} of the host"

    def read(self) -> Gpus:
        """All GPUs now."""
        count = self.begin().count or 0
        devices = tuple(self.readings(range(count)))
        return msgspec.structs.replace(self.end(), devices=devices)

    def begin(self) -> Gpus:
        """How many GPUs there are, and the versions; without ``devices``."""
        self._problems = []
        count = self._ask(self._library or self._open(), "nvmlDeviceGetCount", needed=True)
        if count != self._host.count:
            self._devices.clear()  # indices and handles may mean other GPUs now
        self._host = msgspec.structs.replace(self._host, count=count)
        return self._host

    def readings(self, order: Sequence[int], skip: Collection[int] = ()) -> Iterator[Gpu]:
        """Each GPU of *order* (indices) as soon as it is read; those in *skip* are not touched.

        A GPU that does not say who it is is a problem in :meth:`end`, and nothing here.
        """
        for index in order:
            if self._library is None or index in skip:
                continue
            try:
                gpu = self._gpu(self._library, index)
            except NvmlError:
                self._close()
                raise
            if gpu is not None:
                yield gpu

    def end(self) -> Gpus:
        """What :meth:`begin` told, with problems and counts of odd samples; no ``devices``."""
        problems, invalid = tuple(self._problems), dict(self._invalid)
        return msgspec.structs.replace(self._host, problems=problems, invalid_total=invalid)

    def known(self) -> tuple[Known, ...]:
        """The GPUs that have told who they are and are not lost."""
        return tuple(one.known for one in self._devices.values() if one.lost_until is None)

    def close(self) -> None:
        """Let go of NVML."""
        if self._library is not None:
            self._close()

    def _remember(self, function: str, index: int) -> None:
        self._last = (function, index)

    def _open(self) -> Library:
        import pynvml  # noqa: PLC0415 - 3 MiB that only a host with a GPU pays for

        if self._path is not None:
            # pynvml takes no path, it opens the SONAME; the loader then finds this one loaded
            try:
                ctypes.CDLL(self._path)
            except OSError as error:
                raise NvmlError(f"NVML cannot be loaded: {error}", kind="no_library") from error
        library = Library(pynvml, self._calling, self._invalid)
        code, _ = library.call("nvmlInit", -1)
        if code:
            raise library.useless("nvmlInit", code)
        self.nvml, self._library = pynvml, library
        driver = self._ask(library, "nvmlSystemGetDriverVersion")
        # not the second version of it, which asks libcuda and fails where that is not installed
        cuda = self._ask(library, "nvmlSystemGetCudaDriverVersion")
        self._driver = _numbers(driver)
        self._host = Gpus(
            count=0,
            driver_version=driver,
            nvml_version=self._ask(library, "nvmlSystemGetNVMLVersion"),
            cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
        )
        return library

    def _close(self) -> None:
        library, self._library, self.nvml = self._library, None, None
        self._devices.clear()
        if library is not None:
            with suppress(NvmlError):  # it is of no use any more
                library.call("nvmlShutdown", -1)

    def _ask(self, library: Library, function: str, *, needed: bool = False) -> Any:
        """What *function* says of no GPU in particular; None, told, where it fails."""
        try:
            code, answer = library.call(function, -1)
            if code and needed:
                raise library.useless(function, code)
        except NvmlError:
            self._close()
            raise
        if code not in {0, 3, 13}:
            self._problems.append(f"the host: {function}: {library.words(code)}")
        return answer

    def _gpu(self, library: Library, index: int) -> Gpu | None:
        device, now = self._devices.get(index), time.monotonic()
        if device and device.lost_until is not None and now < device.lost_until:
            return device.as_lost()
        try:
            if device is None or device.lost_until is not None or device.expired:
                # after a loss it may have been reset: ask who is there
                device = self._identify(library, index) or device
            if device is None:
                return None
            return device.as_lost() if device.lost_until is not None else self._read(device, now)
        except LostError as error:
            device = self._devices.get(index)
            if device is None:
                self._problems.append(f"GPU {index} is lost, and its UUID is not known")
                return None
            device.lose(str(error), now + self._lost_retry)
            return device.as_lost()

    def _identify(self, library: Library, index: int) -> Device | None:
        device, probe = identify(library, index, self._driver)
        if device is None:
            self._problems += probe.problems()
            self._problems.append(f"GPU {index} does not give its UUID")
        else:
            self._devices[index] = device
        return device

    def _read(self, device: Device, now: float) -> Gpu:
        gpu = device.read(now, self._slow_every)
        self._problems += device.problems()
        return gpu


def _numbers(version: str | None) -> tuple[int, ...]:
    """580.95.05 as (580, 95, 5); () for what is no version."""
    if version is None or not re.fullmatch(r"\d{1,9}(\.\d{1,9})*", version):
        return ()
    return tuple(int(part) for part in version.split("."))
