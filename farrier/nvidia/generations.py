"""Generations of NVIDIA's GPUs, told by the PCI device id, and which kernel module they take."""

from __future__ import annotations

from enum import Enum
from typing import Literal

__all__ = ["Generation", "OpenModule", "generation_of", "has_nvlink5", "open_module"]

OpenModule = Literal["required", "allowed", "forbidden"]


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
    def open_module(self) -> OpenModule:
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


_G = Generation
_RANGES: tuple[tuple[int, int, Generation], ...] = (
    (0x0FC0, 0x103F, _G.KEPLER),
    (0x1180, 0x11FF, _G.KEPLER),
    (0x1280, 0x12BF, _G.KEPLER),
    (0x1340, 0x143F, _G.MAXWELL),
    (0x15F0, 0x15FF, _G.PASCAL),  # GP100
    (0x1600, 0x167F, _G.MAXWELL),
    (0x1720, 0x172F, _G.PASCAL),  # GP100
    (0x1740, 0x179F, _G.MAXWELL),
    (0x17C0, 0x17FF, _G.MAXWELL),
    (0x1B00, 0x1D7F, _G.PASCAL),
    (0x1D80, 0x1DFF, _G.VOLTA),
    (0x1E00, 0x1FFF, _G.TURING),
    (0x2080, 0x20FF, _G.AMPERE),  # GA100
    (0x2180, 0x21FF, _G.TURING),
    (0x2200, 0x229F, _G.AMPERE),
    (0x2300, 0x237F, _G.HOPPER),
    (0x2400, 0x25FF, _G.AMPERE),
    (0x2680, 0x28FF, _G.ADA),
    (0x2900, 0x29FF, _G.BLACKWELL),  # GB100, GB102
    (0x2B00, 0x2DFF, _G.BLACKWELL),
    (0x2E00, 0x2E7F, _G.BLACKWELL),  # GB10
    (0x2F00, 0x2F7F, _G.BLACKWELL),
    (0x3180, 0x31FF, _G.BLACKWELL),  # B300, GB300
)
"""First and last device id of a generation's GPUs. Up to Hopper compared with every chip that
pci.ids names; Blackwell after NVIDIA/gpu-admin-tools' gpu/devid_chips.py, except GB10, 2B00 and
B300, which are from memory and were compared with no table."""

_GRACE_HOPPER = range(0x2340, 0x2380)


def generation_of(device: int) -> Generation | None:
    """The generation of the GPU with PCI device id *device* (vendor 10de), None if unknown."""
    for first, last, generation in _RANGES:
        if first <= device <= last:
            return generation
    return None


def open_module(device: int) -> OpenModule | None:
    """Whether the GPU must, may or cannot have the open kernel module; None if it is unknown.

    As its generation, but for Grace Hopper, which takes only the open one (NVIDIA's driver
    installation guide, "Kernel modules").
    """
    if device in _GRACE_HOPPER:
        return "required"
    generation = generation_of(device)
    return generation.open_module if generation else None


def has_nvlink5(device: int) -> bool:
    """Whether the GPU has NVLink 5, whose switches want nvlsm and ib_umad (B200, B300, GB200…)."""
    return 0x2900 <= device <= 0x29FF or 0x3180 <= device <= 0x31FF
