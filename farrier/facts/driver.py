"""NVIDIA's driver: loaded, built, and installed by whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["DriverFacts", "GpuSeen", "Module", "Package"]


@dataclass(frozen=True, slots=True)
class Package:
    """A package of the driver's families that dpkg knows something about.

    *state* is dpkg's: ``installed``, ``unpacked``, ``half-configured``, ``half-installed``,
    ``config-files``, ``triggers-awaited``, ``triggers-pending``. *origin* is where apt would get
    this very version: ``nvidia``, ``debian``, ``ubuntu``, another archive's origin in lower case,
    ``local`` where no source offers it, "" where apt could not be asked.
    """

    name: str
    version: str
    state: str = "installed"
    held: bool = False
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Module:
    """The driver's kernel module on the disk, for one kernel.

    *flavour* is ``open`` or ``proprietary``; both are "" where modinfo is absent or fails.
    """

    version: str = ""
    flavour: str = ""


@dataclass(frozen=True, slots=True)
class GpuSeen:
    """A GPU that the loaded driver serves, as nvidia-smi lists it.

    *memory_mb* is the total in MiB, None where the driver names none (memory shared with the CPU).
    *pci* is the function's address in the kernel's form (``0000:1b:00.0``).
    """

    index: int
    uuid: str
    name: str
    memory_mb: int | None
    pci: str


@dataclass(frozen=True, slots=True)
class DriverFacts:
    """The driver of this host.

    *loaded* is the version of the module in the kernel, None if there is none, and
    *loaded_flavour* ``open``, ``proprietary`` or None. *library* is the version of the libcuda
    (else NVML) that programs would load. *modules* maps a kernel's release to the module on the
    disk for it. *runfile* says that NVIDIA's own installer put files here. *gpus* and *smi_error*
    are nvidia-smi's, which is asked only while a driver is loaded (it would load one): *smi_error*
    is "" then, or where all is well.
    """

    loaded: str | None = None
    loaded_flavour: str | None = None
    library: str | None = None
    packages: tuple[Package, ...] = ()
    modules: Mapping[str, Module] = field(default_factory=dict)
    runfile: bool = False
    gpus: tuple[GpuSeen, ...] = ()
    smi_error: str = ""
