"""Who a GPU is."""

from __future__ import annotations

from typing import Any

from farrier_agent.nvml.probe import Probe

__all__ = ["pci_bus_id", "static", "uuid"]

ARCHITECTURES = {
    2: "Kepler",
    3: "Maxwell",
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada Lovelace",
    9: "Hopper",
    10: "Blackwell",
    13: "Rubin",
}
"""``NVML_DEVICE_ARCH_*``; one that is not here is absent."""


def uuid(probe: Probe) -> str | None:
    """The UUID, by which a GPU is known everywhere."""
    return probe.text("uuid", probe.ask("nvmlDeviceGetUUID"))


def pci_bus_id(probe: Probe) -> str | None:
    """Its place on the PCI bus, as 00000000:18:00.0."""
    pci = probe.ask("nvmlDeviceGetPciInfo")
    return probe.text("pci_bus_id", pci.busId) if pci else None


def static(probe: Probe) -> dict[str, Any]:
    """Names and versions."""
    return {
        "name": probe.text("name", probe.ask("nvmlDeviceGetName")),
        "serial": probe.text("serial", probe.ask("nvmlDeviceGetSerial")),
        "vbios_version": probe.text("vbios_version", probe.ask("nvmlDeviceGetVbiosVersion")),
        "inforom_version": probe.text(
            "inforom_version", probe.ask("nvmlDeviceGetInforomImageVersion")
        ),
        "gsp_firmware_version": probe.text(
            "gsp_firmware_version", probe.ask("nvmlDeviceGetGspFirmwareVersion")
        ),
        "architecture": ARCHITECTURES.get(probe.ask("nvmlDeviceGetArchitecture")),
        "compute_capability": _capability(probe),
        "minor_number": probe.value("minor_number", probe.ask("nvmlDeviceGetMinorNumber")),
    }


def _capability(probe: Probe) -> str | None:
    found = probe.ask("nvmlDeviceGetCudaComputeCapability")
    if found is None:
        return None
    major, minor = (probe.value("compute_capability", part) for part in found)
    return None if major is None or minor is None else f"{major}.{minor}"
