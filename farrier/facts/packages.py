"""Packages of the driver's families, as dpkg and apt know them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

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

# Without preferences, which decide nothing here: pins with patterns, as Farrier's own, are compared
# with every package there is, which took 2.4 of 2.5 s (Debian 13).
ORIGINS = r"""
if [ -n "$packages" ] && has apt-cache; then
    grep -HsEm1 '^Origin:' "$VAR"/lib/apt/lists/*Release | sed 's/^.*\//release /'
    apt-cache -o Dir::Etc::preferences=/nonexistent -o Dir::Etc::preferencesparts=/nonexistent \
        policy $(echo "$packages" | cut -d' ' -f1 | sort -u) 2>/dev/null |
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
    """Where the installed version of each package comes from.

    From lines ``policy …`` of ``apt-cache policy`` and ``release FILE:Origin: …`` of its lists.
    """
    releases = _releases(output)
    origins: dict[str, str] = {}
    name, installed = "", False
    for line in output:
        if not line.startswith("policy "):
            continue
        text = line.removeprefix("policy ")
        if text[:1].strip() and text.endswith(":"):
            name, installed = text[:-1].partition(":")[0], False
        elif text.startswith(" *** "):
            installed = True
            origins.setdefault(name, "local")
        elif text.startswith("        ") and installed:
            if origins[name] == "local":
                origins[name] = _origin(text.split()[1:], releases)
        else:
            installed = False
    return origins


def _releases(output: Sequence[str]) -> Mapping[str, str]:
    """Address of a Release file, as its file is called in apt's lists -> its Origin."""
    releases = {}
    for line in output:
        if match := re.fullmatch(r"release (\S+)_(?:In)?Release:Origin:\s*(.+)", line):
            releases[unquote(match[1])] = match[2].strip().lower()
    return releases


def _origin(words: Sequence[str], releases: Mapping[str, str]) -> str:
    """Of ``URI SUITE/COMPONENT ARCHITECTURE Packages``, or ``URI  Packages`` of a flat source."""
    uri = words[0] if words else ""
    if "://" not in uri:  # dpkg's own status, a directory of packages
        return "local"
    suite = words[1].rpartition("/")[0] if len(words) > 3 else ""
    address = uri.partition("://")[2].rpartition("@")[2].rstrip("/")
    listed = "_".join([address, "dists", suite] if suite else [address]).replace("/", "_")
    if listed in releases:
        return releases[listed]
    return "nvidia" if "developer.download.nvidia.com" in uri else ""
