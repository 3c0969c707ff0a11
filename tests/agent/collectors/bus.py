"""A sysfs tree of PCI functions."""

from __future__ import annotations

import shutil
from pathlib import Path


class Bus:
    """``bus/pci`` under *root*, with devices as links into a directory, as in sysfs."""

    def __init__(self, root: Path) -> None:
        self.devices = root / "bus/pci/devices"
        self._drivers = root / "bus/pci/drivers"
        self._real = root / "devices/pci0000:00"
        self.devices.mkdir(parents=True)

    def add(
        self,
        address: str,
        *,
        vendor: str = "0x10de",
        of: str = "0x030200",
        driver: str = "nvidia",
        virtual: bool = False,
    ) -> None:
        """A function of class *of*. *virtual*: one that another function has (SR-IOV)."""
        device = self._real / address
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{of}\n")
        (self._drivers / driver).mkdir(parents=True, exist_ok=True)
        (device / "driver").symlink_to(self._drivers / driver)
        if virtual:
            (device / "physfn").symlink_to(device)
        (self.devices / address).symlink_to(device)

    def remove(self, address: str) -> None:
        """It left the bus."""
        (self.devices / address).unlink()
        shutil.rmtree(self._real / address)
