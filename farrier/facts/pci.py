"""NVIDIA's functions on the PCI bus: GPUs and NVSwitches, and who drives them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MELLANOX", "NVIDIA", "NvidiaPci", "PciFunction"]

NVIDIA = 0x10DE
MELLANOX = 0x15B3


@dataclass(frozen=True, slots=True)
class PciFunction:
    """One PCI function, by its *address* (``0000:1b:00.0``).

    *class_code* has the 16 bits of class and subclass (``0x0302``: 3D controller). *driver* is the
    kernel's (``nvidia``, ``nouveau``, ``vfio-pci``), "" if none is bound. *numa* is the node, None
    where the kernel knows none.
    """

    address: str
    vendor: int
    device: int
    class_code: int
    driver: str = ""
    numa: int | None = None


@dataclass(frozen=True, slots=True)
class NvidiaPci:
    """All functions of NVIDIA's, audio and USB included, and the switches' managers.

    *nvlink_managers* are Mellanox functions whose vital product data says ``SW_MNG``: the way to
    the NVSwitches of NVLink 5 machines (HGX B200 and B300), which show no NVSwitch of their own.
    """

    functions: tuple[PciFunction, ...] = ()
    nvlink_managers: tuple[PciFunction, ...] = ()

    @property
    def gpus(self) -> tuple[PciFunction, ...]:
        """Functions of class VGA controller or 3D controller."""
        return tuple(one for one in self.functions if one.class_code in {0x0300, 0x0302})

    @property
    def nvswitches(self) -> tuple[PciFunction, ...]:
        """NVSwitches before NVLink 5: functions of class "other bridge"."""
        return tuple(one for one in self.functions if one.class_code == 0x0680)
