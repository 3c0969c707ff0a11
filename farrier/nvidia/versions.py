"""Versions of NVIDIA's driver, and which of them a CUDA release needs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import total_ordering

__all__ = ["CUDA_DRIVERS", "DriverVersion", "UnknownCudaError", "cuda_needs"]

_VERSION = re.compile(r"(?:[0-9]+:)?([0-9]{3,4}(?:\.[0-9]+){0,2})(?:[-+~].*)?")


@total_ordering
@dataclass(frozen=True, slots=True)
class DriverVersion:
    """An upstream version of the driver; compares by its numbers.

    *written* is how it was written: ``580.65.06`` and ``580.65.6`` are equal, but only the first
    is the name of a file.
    """

    numbers: tuple[int, ...]
    written: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str) -> DriverVersion | None:
        """Read ``535.309.01`` or a package's ``1:535.309.01-1~deb12u1``; None if it is neither."""
        match = _VERSION.fullmatch(text.strip())
        if match is None:
            return None
        return cls(tuple(int(part) for part in match[1].split(".")), match[1])

    @property
    def branch(self) -> int:
        """The release branch: 535 of 535.309.01."""
        return self.numbers[0]

    def __lt__(self, other: DriverVersion) -> bool:
        return self.numbers < other.numbers

    def __str__(self) -> str:
        return self.written or ".".join(str(number) for number in self.numbers)


class UnknownCudaError(LookupError):
    """No minimum driver is known for this CUDA release."""


CUDA_DRIVERS: dict[str, str] = {
    "11.8": "520.61.05",
    "12.0": "525.60.13",
    "12.1": "530.30.02",
    "12.2": "535.54.03",
    "12.3": "545.23.06",
    "12.4": "550.54.14",
    "12.5": "555.42.02",
    "12.6": "560.28.03",
    "12.8": "570.26",
    "12.9": "575.51.03",
    "13.0": "580.65.06",
    "13.1": "590.44.01",
}
"""CUDA release -> the oldest Linux driver that comes with it (CUDA Toolkit Release Notes).

Within a major release an older driver runs part of what the newer toolkits build, but nothing that
is compiled on the host (PTX) or that calls what only the newer driver has: this table is strict.
"""


def cuda_needs(cuda: str) -> DriverVersion:
    """The oldest driver for programs built with CUDA *cuda* (``13.0``, ``12.8.1``).

    Raises :class:`UnknownCudaError`.
    """
    release = ".".join(cuda.split(".")[:2])
    minimum = DriverVersion.parse(CUDA_DRIVERS.get(release, ""))
    if minimum is None:
        raise UnknownCudaError(
            f"no minimum driver is known for CUDA {cuda}; known: {', '.join(CUDA_DRIVERS)}"
        )
    return minimum
