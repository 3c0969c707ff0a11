"""Role ``cuda_toolkit``: compilers and libraries of CUDA, for what is built on the host."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pyinfra import host

from farrier.converge.apt_sources import AptSource, apt_source, no_apt_source
from farrier.converge.commands import Refuse
from farrier.converge.held import Family, held_packages, no_packages
from farrier.converge.typed import deploy, operation
from farrier.defaults import Default, Defaults
from farrier.nvidia.repository import FINGERPRINTS, key_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from farrier.converge.commands import Commands

__all__ = ["DEFAULTS", "cuda_toolkit", "family", "remove"]

DEFAULTS = Defaults(
    "cuda_toolkit",
    "A CUDA toolkit, held at its version, beside the others that the host may have. Off unless"
    " asked for: vLLM's wheels bring the CUDA libraries that they need. `/usr/local/cuda` is the"
    " packages' own link (`update-alternatives --config cuda`). No driver is ever changed by it.",
    (
        Default(
            "cuda_toolkit_version",
            None,
            "`13.0` or `13.0.2`; a shorter one means the newest of it at the first installation,"
            " afterwards the installed one. None: no toolkit.",
        ),
        Default(
            "cuda_toolkit_source",
            "nvidia",
            "`nvidia`: `cuda-toolkit-13-0` from NVIDIA's repository; `distribution`:"
            " `nvidia-cuda-toolkit` from the archive (on Debian from its component non-free, which"
            " has to be among the host's sources; it needs the driver from there, too).",
        ),
        Default(
            "cuda_toolkit_repo_url",
            "https://developer.download.nvidia.com/compute/cuda/repos/{distro}/{machine}",
            "NVIDIA's repository, or a mirror of it; `{distro}` is `debian12`, `{machine}`"
            " `x86_64` or `sbsa`. Not used where another source of the host names it already, as"
            " that of the role nvidia_driver does.",
        ),
        Default(
            "cuda_toolkit_repo_key_url",
            None,
            "Where the repository's key is; None: beside it, under NVIDIA's name for it.",
        ),
        Default(
            "cuda_toolkit_repo_fingerprint",
            None,
            "Fingerprint of that key, 40 hex digits; None: NVIDIA's for the host's release.",
        ),
        Default(
            "cuda_toolkit_repo_proxy",
            None,
            "`http://host:port` through which apt reaches the repository.",
        ),
    ),
)

SOURCES = ("nvidia", "distribution")

# NVIDIA's names end with the version, but for the shared configuration and the two profilers.
_OF_NVIDIA = (
    r"(cuda|gds|lib(cu|npp|nv))[a-z0-9-]*-\d+-\d+"
    r"|cuda-toolkit(-\d+)*-config-common|nsight-(compute|systems)-.*"
)
# Those of Debian's and Ubuntu's source package nvidia-cuda-toolkit.
_OF_DISTRIBUTION = (
    r"nvidia-cuda-(toolkit|dev|gdb)|nvidia-(visual-)?profiler|nvidia-opencl-dev|libaccinj64-.*"
    r"|libcu(blas|blaslt|dart|fft|fftw|inj64|pti|rand|solver|solvermg|sparse)[-0-9.]*(dev)?"
    r"|libnpp[a-z]*[0-9]+|libnv(blas|jpeg|rtc|rtc-builtins|toolsext|vm)[0-9.]+|libnvidia-ml-dev"
)


def family(version: str, source: str) -> Family:
    """The packages of CUDA *version* from *source*. Raises :class:`ValueError` in words."""
    if source not in SOURCES:
        raise ValueError(f"cuda_toolkit_source = {source!r} is none of {', '.join(SOURCES)}")
    match = re.fullmatch(r"(\d+)\.(\d+)(\.\d+)?", version)
    if match is None:
        raise ValueError(f"cuda_toolkit_version = {version!r} is not like '13.0' or '13.0.2'")
    if source == "distribution":
        names, members = ("nvidia-cuda-toolkit",), _OF_DISTRIBUTION
    else:
        names, members = (f"cuda-toolkit-{match[1]}-{match[2]}",), _OF_NVIDIA
    return Family(names, members, "cuda_toolkit_version", names[0])


@deploy("CUDA toolkit")
def cuda_toolkit() -> None:
    """Install the toolkit that the inventory asks for; others that are there stay."""
    settings = DEFAULTS.read(host.data)
    version, source = settings["cuda_toolkit_version"], settings["cuda_toolkit_source"]
    if version is None:
        return
    try:
        packages = family(version, source)
    except ValueError as error:
        _refused(str(error), name="Version")
        return
    if source == "nvidia":
        apt_source(_repository(settings), name="Repository")
    held_packages(packages, version=version, name="Packages, held")


@operation
def _refused(why: str) -> Commands:
    yield Refuse(f"{why}\nCorrect it in the inventory, then run the deploy again")


def _repository(settings: Mapping[str, Any]) -> AptSource:
    fingerprint = settings["cuda_toolkit_repo_fingerprint"]
    beside = "{uri}/{key}.pub" if fingerprint else _KEYS
    return AptSource(
        "nvidia-cuda",
        settings["cuda_toolkit_repo_url"],
        settings["cuda_toolkit_repo_key_url"] or beside,
        fingerprint or FINGERPRINTS,
        proxy=settings["cuda_toolkit_repo_proxy"],
        # The driver's file as well: apt refuses one repository with two keyrings.
        keyring="/etc/apt/keyrings/farrier-nvidia.gpg",
        preferences=_PREFERENCES,
    )


_KEYS = {system: f"{{uri}}/{key_name(key)}" for system, key in FINGERPRINTS.items()}

# 1 is below whatever is installed or in the archive (apt_preferences(5)): what is asked for by
# name is found there, and the repository's drivers replace nothing.
_PREFERENCES = """\
# Written by Farrier's role cuda_toolkit.
Package: *
Pin: release l=NVIDIA CUDA
Pin-Priority: 1
"""


@deploy("Remove CUDA toolkit")
def remove() -> None:
    """Purge every CUDA toolkit of NVIDIA's and the distribution's, and the repository.

    Compilers and other packages that came with them stay.
    """
    for source, title in (
        ("nvidia", "NVIDIA's CUDA toolkit"),
        ("distribution", "nvidia-cuda-toolkit"),
    ):
        no_packages(replace(family("0.0", source), title=title), name=title)
    no_apt_source(_repository(DEFAULTS.read(host.data)), name="Repository")
