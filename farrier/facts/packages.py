"""Packages of the driver's families, as dpkg and apt know them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from farrier.nvidia.families import is_driver_package

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["LISTING", "ORIGINS", "Package", "parse_origins", "parse_packages"]


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


# One listing of everything: the patterns of dpkg-query know no "not", and grep is a superset.
LISTING = r"""
packages=$(dpkg-query -W -f \
    '${Package} ${Architecture} ${Version} ${db:Status-Want} ${db:Status-Status}\n' 2>/dev/null |
    grep -E 'nvidia|^cuda-drivers|^libcuda|^nvlsm|^libnv|^libxnvctrl|^nvlink5')
if [ -n "$packages" ]; then
    echo "architecture $(dpkg --print-architecture)"
    echo "$packages" | sed 's/^/package /'
fi
"""

ORIGINS = r"""
if [ -n "$packages" ] && has apt-cache; then
    apt-cache policy 2>/dev/null | sed 's/^/file /'
    apt-cache policy $(echo "$packages" | cut -d' ' -f1 | sort -u) 2>/dev/null |
        sed 's/^/policy /'
fi
"""


def parse_packages(output: Sequence[str]) -> tuple[Package, ...]:
    """Parse the lines that LISTING, and maybe ORIGINS, printed.

    A package of a foreign architecture is called ``name:architecture``.
    """
    native = ""
    packages = []
    for line in output:
        match line.split(" "):
            case ["architecture", found]:
                native = found
            case ["package", name, architecture, version, want, state]:
                if not is_driver_package(name) or not version or state == "not-installed":
                    continue
                foreign = architecture not in {native, "all"}
                packages.append(
                    Package(
                        f"{name}:{architecture}" if foreign else name,
                        version,
                        state,
                        want == "hold",
                    )
                )
    origins = parse_origins(output)
    return tuple(
        replace(one, origin=origins.get(one.name.partition(":")[0], "")) for one in packages
    )


def parse_origins(output: Sequence[str]) -> Mapping[str, str]:
    """Where the installed version of each package comes from, from apt-cache's two policies."""
    archives = _archives(
        [line.removeprefix("file ") for line in output if line.startswith("file ")]
    )
    origins: dict[str, str] = {}
    name, offered = "", False
    for line in output:
        if not line.startswith("policy "):
            continue
        text = line.removeprefix("policy ")
        if text[:1].strip() and text.endswith(":"):
            name, offered = text[:-1].partition(":")[0], False
        elif text.startswith(" *** "):
            offered = True
            origins.setdefault(name, "local")
        elif text.startswith("        ") and offered:
            file = " ".join(text.split()[1:])
            if file in archives and origins[name] == "local":
                origins[name] = archives[file]
        else:
            offered = False
    return origins


def _archives(policy: Sequence[str]) -> Mapping[str, str]:
    """``URI SUITE ARCH Packages`` -> origin, from ``apt-cache policy`` without a name."""
    archives: dict[str, str] = {}
    file = ""
    for line in policy:
        words = line.split()
        if len(words) > 1 and words[0].lstrip("-").isdigit():
            file = " ".join(words[1:])
            if not file.startswith("/"):  # /var/lib/dpkg/status
                archives[file] = "nvidia" if "developer.download.nvidia.com" in file else ""
        elif words[:1] == ["release"] and file in archives:
            fields = dict(
                part.partition("=")[::2] for part in line.strip()[len("release") :].split(",")
            )
            fields = {key.strip(): value for key, value in fields.items()}
            archives[file] = fields.get("o", "").lower() or archives[file]
    return archives
