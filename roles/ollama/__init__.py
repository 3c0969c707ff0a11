"""Role ``ollama``: Ollama's program itself, a directory per version. Runs nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra import host

from farrier.converge import Absent, Directory, Text, packages, tree
from farrier.converge.releases import Release, release
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULTS", "is_pinned", "ollama", "ollama_release", "remove"]

DEFAULTS = Defaults(
    "ollama",
    "Ollama from its release tarball under `/opt/farrier/ollama/<version>`, known by its SHA-256."
    " Its own installer is not used: it writes a unit of its own and restarts what runs. The"
    " tarball is fetched once, on the operator's machine, and pushed. Models are pulled by each"
    " replica's unit before it starts, and compared with the digest in `source`.",
    (
        Default("ollama_version", "0.33.0", "The version, for the directory's name and the URL."),
        Default(
            "ollama_url",
            "https://github.com/ollama/ollama/releases/download/v{version}/"
            "ollama-linux-amd64.tar.zst",
            "The tarball: an address, or a path on the operator's machine.",
        ),
        Default(
            "ollama_sha256",
            None,
            "Its SHA-256, 64 hexadecimal digits, from the release's `sha256sum.txt`. Hosts that"
            " serve with Ollama are refused without it.",
        ),
        Default("ollama_packages", ["zstd"], "Debian packages that unpacking takes."),
    ),
)

_FILL = Path(__file__).parent / "templates" / "fill"
_NEEDS_MB = 6000
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_pinned(settings: Mapping[str, Any]) -> bool:
    """Whether the inventory says which tarball is meant."""
    return _SHA256.fullmatch(str(settings["ollama_sha256"])) is not None


def ollama_release(settings: Mapping[str, Any]) -> Release:
    """The release that *settings* name."""
    version = str(settings["ollama_version"])
    return Release(
        thing="ollama",
        version=version,
        url=str(settings["ollama_url"]).replace("{version}", version),
        sha256=str(settings["ollama_sha256"]),
        program="bin/ollama",
        needs_mb=_NEEDS_MB,
    )


@deploy("Ollama")
def ollama() -> None:
    """Install the program; running engines keep the version they run."""
    settings = DEFAULTS.read(host.data)
    packages(name="Packages", names=settings["ollama_packages"])
    tree(
        Directory("/opt/farrier/ollama"),
        Text("/opt/farrier/ollama/fill", _FILL.read_text(encoding="utf-8"), mode="755"),
        name="What fills a store",
    )
    release(ollama_release(settings), name="Release")


@deploy("Remove Ollama")
def remove() -> None:
    """Take away every version; models go with the replicas' caches."""
    tree(Absent("/opt/farrier/ollama"), name="Releases")
