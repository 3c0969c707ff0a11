"""NVIDIA's functions on the PCI bus: GPUs and NVSwitches, and who drives them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyinfra.api import FactBase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.facts.roots import Roots

__all__ = ["MELLANOX", "NVIDIA", "NvidiaPci", "Pci", "PciFunction", "parse"]

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


# A switch's manager is a ConnectX-7 (0x1021); others are not asked, as reading this takes seconds
# on some cards.
_SCRIPT = r"""
for d in "$SYS"/bus/pci/devices/*; do
    read -r vendor 2>/dev/null < "$d/vendor" || continue
    read -r device 2>/dev/null < "$d/device" || continue
    case $vendor,$device in
        0x10de,*) ;;
        0x15b3,0x1021) grep -qs SW_MNG "$d/vpd" || continue;;
        *) continue;;
    esac
    class= numa= driver=
    read -r class 2>/dev/null < "$d/class"
    read -r numa 2>/dev/null < "$d/numa_node"
    [ -d "$d/driver" ] && driver=$(cd -P "$d/driver" && echo "${PWD##*/}")
    echo "function ${d##*/} $vendor $device ${class:--} ${numa:--} $driver"
done; true
"""


class Pci(FactBase[NvidiaPci | None]):
    """:class:`NvidiaPci`, from sysfs; None when the host did not answer."""

    def command(self, roots: Roots) -> str:
        """One shell; a process for each function that has a driver."""
        return roots.shell() + _SCRIPT

    @staticmethod
    def default() -> NvidiaPci | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> NvidiaPci:
        """Parse what the script printed."""
        return parse(output)


_FUNCTION = re.compile(
    r"function (\S+) 0x([0-9a-f]{4}) 0x([0-9a-f]{4}) 0x([0-9a-f]{4})[0-9a-f]{2} (\S+) ?(\S*)"
)


def parse(output: Sequence[str]) -> NvidiaPci:
    """Parse lines ``function ADDRESS VENDOR DEVICE CLASS NUMA DRIVER``; the rest is ignored."""
    found = []
    for line in output:
        if match := _FUNCTION.fullmatch(line.strip()):
            address, vendor, device, class_code, numa, driver = match.groups()
            found.append(
                PciFunction(
                    address,
                    int(vendor, 16),
                    int(device, 16),
                    int(class_code, 16),
                    driver,
                    int(numa) if re.fullmatch("[0-9]{1,6}", numa) else None,  # -1: no node
                )
            )
    return NvidiaPci(
        tuple(one for one in found if one.vendor == NVIDIA),
        tuple(one for one in found if one.vendor == MELLANOX),
    )
