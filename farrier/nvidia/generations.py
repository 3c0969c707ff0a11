"""Generations of NVIDIA's GPUs, told by the PCI device id, and which kernel module they take."""

from __future__ import annotations

from enum import Enum
from typing import Literal

__all__ = ["Generation", "generation_of", "has_nvlink5"]


class Generation(Enum):
    """A GPU architecture, oldest first."""

    KEPLER = "Kepler"
    MAXWELL = "Maxwell"
    PASCAL = "Pascal"
    VOLTA = "Volta"
    TURING = "Turing"
    AMPERE = "Ampere"
    ADA = "Ada Lovelace"
    HOPPER = "Hopper"
    BLACKWELL = "Blackwell"

    @property
    def open_module(self) -> Literal["required", "allowed", "forbidden"]:
        """Whether NVIDIA's open kernel module must, may or cannot drive it."""
        if self is Generation.BLACKWELL:
            return "required"
        if self in {Generation.TURING, Generation.AMPERE, Generation.ADA, Generation.HOPPER}:
            return "allowed"
        return "forbidden"

    @property
    def last_branch(self) -> int | None:
        """The last driver branch that supports it, None if it is still supported."""
        if self is Generation.KEPLER:
            return 470
        if self in {Generation.MAXWELL, Generation.PASCAL, Generation.VOLTA}:
            return 580
        return None


_RANGES: tuple[tuple[int, int, Generation], ...] = ()


def generation_of(device: int) -> Generation | None:
    """The generation of the GPU with PCI device id *device* (vendor 10de), None if unknown."""
    for first, last, generation in _RANGES:
        if first <= device <= last:
            return generation
    return None


def has_nvlink5(device: int) -> bool:
    """Whether the GPU has NVLink 5, whose switches want nvlsm and ib_umad (B200, B300, GB…)."""
    return 0x2900 <= device <= 0x29FF or 0x3180 <= device <= 0x31FF
