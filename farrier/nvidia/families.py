"""Which Debian packages are parts of NVIDIA's driver."""

from __future__ import annotations

from fnmatch import fnmatchcase

__all__ = ["FAMILIES", "is_driver_package"]

FAMILIES = (
    "cuda-drivers*",
    "firmware-nvidia-g*",
    "libcuda1",
    "libcudadebugger1",
    "libnvcuvid1",
    "libnvidia-*",
    "libnvoptix1",
    "libnvsdm*",
    "libxnvctrl*",
    "linux-modules-nvidia-*",
    "linux-objects-nvidia-*",
    "linux-signatures-nvidia-*",
    "nvidia-alternative*",
    "nvidia-compute-utils*",
    "nvidia-dkms*",
    "nvidia-driver*",
    "nvidia-egl-common",
    "nvidia-egl-icd",
    "nvidia-fabricmanager*",
    "nvidia-firmware*",
    "nvidia-headless*",
    "nvidia-imex*",
    "nvidia-kernel*",
    "nvidia-legacy-check",
    "nvidia-modprobe",
    "nvidia-open*",
    "nvidia-opencl-*",
    "nvidia-persistenced",
    "nvidia-powerd",
    "nvidia-settings*",
    "nvidia-smi",
    "nvidia-suspend-common",
    "nvidia-utils*",
    "nvidia-vdpau-driver",
    "nvidia-vulkan-*",
    "nvidia-xconfig",
    "nvlink5*",
    "nvlsm",
    "xserver-xorg-video-nvidia*",
)
"""What changes together with the driver, in all sources (NVIDIA, Debian, Ubuntu), as shell
patterns: modules, libraries, firmware, tools, fabric and subnet manager."""

NOT_THE_DRIVER = ("libnvidia-container*", "libnvidia-egl-*", "*-dev")
"""Packages with versions of their own among the families' names."""


def is_driver_package(name: str) -> bool:
    """Whether the package *name* (``libcuda1``, ``libcuda1:i386``) is of the driver's families.

    Neither the CUDA toolkit nor the container toolkit is.
    """
    name = name.partition(":")[0]
    return any(fnmatchcase(name, pattern) for pattern in FAMILIES) and not any(
        fnmatchcase(name, pattern) for pattern in NOT_THE_DRIVER
    )
