"""Kernels: the running one, the installed ones, and what a module needs to be built for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Kernel", "KernelFacts"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel with a directory in /lib/modules.

    *headers* says whether a module can be built for it, *image* whether it can be booted. *dkms*
    maps ``name/version`` of a DKMS module to its state for this kernel: ``added`` (not built),
    ``built`` (not installed), ``installed``, ``differs`` (installed, but another file than the one
    DKMS built) or ``broken``.
    """

    release: str
    headers: bool = False
    image: bool = False
    dkms: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """The kernels of this host, oldest first.

    *container* says that the host is one, so that its kernel is another machine's. *secure_boot*
    is None where it cannot be told; *mok_enrolled* says whether the key that DKMS signs with is
    known to the firmware, None where there is no such key or no mokutil. *nouveau_blacklisted*
    looks at modprobe's configuration and at the kernel's command line.
    """

    running: str = ""
    container: bool = False
    kernels: tuple[Kernel, ...] = ()
    nouveau_loaded: bool = False
    nouveau_blacklisted: bool = False
    secure_boot: bool | None = None
    mok_enrolled: bool | None = None
    dkms_installed: bool = False
    compiler: bool = False

    @property
    def newest(self) -> Kernel | None:
        """What the next boot will run: the newest with an image, else the newest there is."""
        bootable = [kernel for kernel in self.kernels if kernel.image]
        return max(bootable or self.kernels, key=lambda one: _order(one.release), default=None)

    def kernel(self, release: str) -> Kernel | None:
        """The kernel called *release*, None if it is not installed."""
        return next((one for one in self.kernels if one.release == release), None)


def _order(release: str) -> list[tuple[int, str]]:
    """Sort key of a release, numbers by value: 6.1.0-9 comes before 6.1.0-56."""
    parts = re.findall(r"[0-9]+|[^0-9]+", release)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
