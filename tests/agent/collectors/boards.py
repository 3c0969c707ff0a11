"""GPUs as NVML and the bus tell them, and how the inventory shows them."""

from __future__ import annotations

from farrier_agent.gpus import Gpu, Gpus

NOW = 1_700_000_000.0


def address(number: int) -> str:
    return f"00000000:{number + 16:02X}:00.0"


def gpu(number: int, index: int | None = None, *, slot: int | None = None) -> Gpu:
    """GPU *number* of the host, as NVML tells it."""
    return Gpu(
        uuid=f"GPU-{number}",
        index=number if index is None else index,
        up=True,
        name="NVIDIA H200",
        serial=f"serial {number}",
        pci_bus_id=address(number if slot is None else slot).lower()[4:],  # as sysfs has it
        power_watts=70.0,
    )


def enumerated(*numbers: int, nameless: int = 0) -> Gpus:
    """NVML enumerates these, with indices of its own making."""
    devices = tuple(gpu(number, index) for index, number in enumerate(numbers))
    return Gpus(count=len(numbers) + nameless, driver_version="580.1", devices=devices)


def bus(*numbers: int) -> frozenset[str]:
    return frozenset(map(address, numbers))


Shown = list[tuple[int, str, str | None]]


def shown(gpus: Gpus | None) -> Shown | None:
    """Index, number and problem of each."""
    if gpus is None:
        return None
    return [(one.index, one.uuid[4:], one.problem) for one in gpus.devices]
