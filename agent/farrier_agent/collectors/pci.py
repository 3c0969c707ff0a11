"""NVIDIA's GPUs on the PCI bus, from sysfs; and one way to write a PCI address.

The kernel keeps a function's ids when the device behind it no longer answers, so a GPU that fell
off the bus is still listed here until it is removed from the bus.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from farrier_agent.collectors import CollectError
from farrier_agent.collectors.blocking import BlockedError, Blocking

__all__ = ["PciCollector", "PciError", "functions", "normalised"]

NVIDIA = b"0x10de"
DISPLAY = (b"0x0300", b"0x0302")
"""Classes of the PCI Code and ID Assignment: VGA compatible, and 3D controller."""
LENT = frozenset({"vfio-pci", "pci-stub", "nvgrace_gpu_vfio_pci"})
"""Drivers of functions that belong to a virtual machine; NVML does not have them either."""

_ADDRESS = re.compile(
    r"(?:PCI:)?([0-9a-fA-F]{4,8}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})(?:\.([0-7]))?"
)


class PciError(CollectError):
    """The PCI bus could not be read; the message says why."""


def normalised(address: str) -> str | None:
    """*address* as NVML writes it (``00000000:C1:00.0``); None when it is none.

    sysfs has ``0000:c1:00.0``, the kernel log ``PCI:0000:c1:00``. Function 0 is the GPU.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        return None
    domain, bus, device, function = match.groups()
    return f"{domain:0>8}:{bus}:{device}.{function or 0}".upper()


def functions(sys_root: Path) -> frozenset[str]:
    """The addresses of NVIDIA's GPUs, :func:`normalised`. May block. Raises :class:`PciError`.

    Without those that a virtual machine was given, and without virtual functions (SR-IOV).
    """
    directory = sys_root / "bus/pci/devices"
    try:
        return frozenset(_gpus(directory))
    except OSError as error:
        raise PciError(
            f"{error.filename or directory}: {error.strerror}; a GPU that NVML no longer has cannot"
            " be told from one that left the bus"
        ) from error


def _gpus(directory: Path) -> Iterator[str]:
    # paths as text: a host has 250 functions, of which a few are GPUs, and 250 Paths take 4 ms
    for name in os.listdir(directory):  # noqa: PTH208
        if _read(f"{directory}/{name}/vendor") != NVIDIA:
            continue
        address = normalised(name)
        device = directory / name
        if address is None or not _read(f"{device}/class").startswith(DISPLAY):
            continue
        if not (device / "physfn").exists() and _driver(device) not in LENT:
            yield address


def _read(path: str) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # it was removed from the bus since it was listed
        return b""
    try:
        return os.read(handle, 64).strip().lower()
    finally:
        os.close(handle)


def _driver(device: Path) -> str | None:
    with suppress(OSError):
        return (device / "driver").readlink().name
    return None


class PciCollector:
    """Reads the PCI bus under *sys_root*."""

    def __init__(self, sys_root: Path) -> None:
        self._look = partial(functions, sys_root)
        self._thread = Blocking("pci")

    async def collect(self, deadline: float) -> frozenset[str]:
        """:func:`functions` within *deadline* seconds. Raises :class:`PciError`."""
        try:
            return await self._thread.run(self._look, deadline)
        except BlockedError as error:
            raise PciError(f"the PCI bus cannot be read: sysfs hangs: {error}") from error
