"""CUDA toolkits: compilers and libraries, which engines from wheels do not need."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CudaFacts", "Toolkit"]


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
