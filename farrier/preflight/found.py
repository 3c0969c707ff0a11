"""Everything that was read of one host, and what a rule gets to judge."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from farrier.facts.apt import AptFacts
from farrier.facts.containers import ContainerFacts
from farrier.facts.driver import DriverFacts
from farrier.facts.fabric import FabricFacts
from farrier.facts.kernel import KernelFacts
from farrier.facts.machine import MachineFacts
from farrier.facts.pci import NvidiaPci
from farrier.facts.updates import UpdateFacts
from farrier.facts.weights import WeightsFacts
from farrier.nvidia.generations import Generation, generation_of, has_nvlink5
from farrier.nvidia.versions import DriverVersion
from farrier.preflight.basics import Basics

if TYPE_CHECKING:
    from farrier.preflight.wanted import Wanted

__all__ = ["Case", "Found"]


@dataclass(frozen=True, slots=True)
class Found:
    """What the host said; None is what it was not asked, or could not say.

    *looked_at* is the operator's clock at the answer, in seconds since 1970.
    """

    basics: Basics
    pci: NvidiaPci | None = None
    driver: DriverFacts | None = None
    kernel: KernelFacts | None = None
    fabric: FabricFacts | None = None
    containers: ContainerFacts | None = None
    updates: UpdateFacts | None = None
    machine: MachineFacts | None = None
    apt: AptFacts | None = None
    weights: WeightsFacts | None = None
    looked_at: float | None = None


@dataclass(frozen=True)
class Case:
    """A host as it was found, against what it is meant to be. Rules are functions of it."""

    wanted: Wanted
    found: Found = field(repr=False)

    @property
    def host(self) -> str:
        """Its name in the inventory."""
        return self.wanted.host

    @property
    def basics(self) -> Basics:
        """What every host is asked."""
        return self.found.basics

    @property
    def debian(self) -> bool:
        """Whether it runs Debian; else, among the supported systems, Ubuntu."""
        return self.basics.system.startswith("debian")

    @cached_property
    def gpus(self) -> int:
        """GPUs on the bus."""
        return len(self.found.pci.gpus) if self.found.pci else 0

    @cached_property
    def generations(self) -> frozenset[Generation]:
        """Of its GPUs, as far as their device ids are known."""
        gpus = self.found.pci.gpus if self.found.pci else ()
        return frozenset(one for gpu in gpus if (one := generation_of(gpu.device)))

    @cached_property
    def nvswitch(self) -> bool:
        """Whether it needs a fabric manager: NVSwitches seen, unless the inventory knows better."""
        if isinstance(self.wanted.driver.fabric, bool):
            return self.wanted.driver.fabric
        pci = self.found.pci
        return bool(pci and (pci.nvswitches or pci.nvlink_managers))

    @cached_property
    def nvlink5(self) -> bool:
        """Whether its NVSwitches are those of NVLink 5."""
        pci = self.found.pci
        return bool(self.nvswitch and pci and any(has_nvlink5(gpu.device) for gpu in pci.gpus))

    @cached_property
    def loaded(self) -> DriverVersion | None:
        """The driver in the kernel."""
        driver = self.found.driver
        return DriverVersion.parse(driver.loaded) if driver and driver.loaded else None

    @cached_property
    def installed(self) -> DriverVersion | None:
        """The driver on the disk: the module for the running kernel, else the libraries."""
        driver = self.found.driver
        if driver is None:
            return None
        running = self.found.kernel.running if self.found.kernel else ""
        module = driver.modules.get(running) or next(iter(driver.modules.values()), None)
        texts = (module.version if module else "", driver.library or "")
        versions = (DriverVersion.parse(text) for text in texts if text)
        return next((version for version in versions if version), None)

    @property
    def driver(self) -> DriverVersion | None:
        """The driver that engines would get: the loaded one, else what would be loaded."""
        return self.loaded or self.installed

    @cached_property
    def flavour(self) -> str:
        """``open`` or ``proprietary``, of the loaded module, else the running kernel's; or ""."""
        driver = self.found.driver
        if driver is None:
            return ""
        running = self.found.kernel.running if self.found.kernel else ""
        module = driver.modules.get(running)
        return driver.loaded_flavour or (module.flavour if module else "")

    @property
    def needs_nvidia(self) -> bool:
        """Whether NVIDIA's driver is this host's business, and was asked for."""
        return self.wanted.cuda and self.found.driver is not None
