"""Which Debian packages are parts of NVIDIA's driver."""

from __future__ import annotations

import re

__all__ = ["is_driver_package"]

_DRIVER = re.compile(
    r"""
    (lib)?nvidia-.+ | (lib)?nvidia[0-9]+-.+ | libcuda1(-.+)? | libcudadebugger1 | libnvcuvid1
    | libnvoptix1 | libnvsdm.* | libxnvctrl.* | cuda-drivers.* | nvlsm
    | linux-(modules|objects|signatures)-nvidia-.+ | firmware-nvidia-.+
    | xserver-xorg-video-nvidia.*
    """,
    re.VERBOSE,
)
_OTHERS = re.compile(
    r"""
    (lib)?nvidia-container-.+ | nvidia-docker.* | nvidia-cuda-.+ | nvidia-cudnn.* | nvidia-cg-.+
    | nvidia-(openjdk|visual-profiler|profiler|nsight|texture-tools).* | libnvidia-nscq.*-dev
    | nvidia-(dcgm|gds|fs).* | libnvidia-egl-.+ | libnvidia-ml-dev
    """,
    re.VERBOSE,
)


def is_driver_package(name: str) -> bool:
    """Whether the package *name* has to change together with the driver, or belongs to its change.

    Kernel modules, libraries, firmware, tools, fabric manager and subnet manager of all sources
    (NVIDIA, Debian, Ubuntu); neither the CUDA toolkit nor the container toolkit.
    """
    name = name.partition(":")[0]
    return bool(_DRIVER.fullmatch(name)) and not _OTHERS.fullmatch(name)
