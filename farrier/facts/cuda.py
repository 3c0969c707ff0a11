"""CUDA toolkits: compilers and libraries, which engines from wheels do not need."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyinfra.api import FactBase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.facts.roots import Roots

__all__ = ["Cuda", "CudaFacts", "Toolkit", "parse"]


@dataclass(frozen=True, slots=True)
class Toolkit:
    """A CUDA toolkit: *version* as it says itself (``13.0.1``), "" if it does not, and *path*."""

    version: str
    path: str


@dataclass(frozen=True, slots=True)
class CudaFacts:
    """All toolkits of the host; *default* is where /usr/local/cuda points, None if nowhere."""

    toolkits: tuple[Toolkit, ...] = ()
    default: str | None = None


# version.json (since CUDA 11.1) begins with "cuda": {"name": …, "version": …}. nvcc in USR/bin is
# Debian's nvidia-cuda-toolkit.
_SCRIPT = r"""
for d in "$USR"/local/cuda-[0-9]*; do
    [ -d "$d" ] && [ ! -L "$d" ] || continue
    said=
    if [ -e "$d/version.json" ]; then
        said=$(grep -A3 '"cuda" *:' "$d/version.json" | grep -m1 '"version"')
    elif [ -x "$d/bin/nvcc" ]; then
        said=$("$d/bin/nvcc" --version 2>/dev/null | grep release)
    fi
    echo "toolkit $d $said"
done
if [ -x "$USR/bin/nvcc" ]; then
    echo "toolkit $USR $("$USR/bin/nvcc" --version 2>/dev/null | grep release)"
fi
[ -d "$USR/local/cuda" ] && echo "default $(cd -P "$USR/local/cuda" && pwd)"
true
"""


class Cuda(FactBase[CudaFacts | None]):
    """:class:`CudaFacts`; None when the host did not answer."""

    def command(self, roots: Roots) -> str:
        """Two processes for each toolkit."""
        return roots.shell() + _SCRIPT

    @staticmethod
    def default() -> CudaFacts | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> CudaFacts:
        """Parse what the script printed."""
        return parse(output)


_VERSION = re.compile(r'"version" *: *"([0-9]+(?:\.[0-9]+)+)"|, V([0-9]+(?:\.[0-9]+)+)')


def parse(output: Sequence[str]) -> CudaFacts:
    """Parse lines ``toolkit PATH WHAT-IT-SAID`` and ``default PATH``."""
    toolkits = []
    default = None
    for line in output:
        kind, _, rest = line.partition(" ")
        if kind == "toolkit" and rest.startswith("/"):
            path, _, said = rest.partition(" ")
            found = _VERSION.search(said)
            toolkits.append(Toolkit((found[1] or found[2]) if found else "", path))
        elif kind == "default" and rest.startswith("/"):
            default = rest
    return CudaFacts(tuple(toolkits), default)
