"""The PCIe link."""

from __future__ import annotations

from typing import Any

from farrier_agent.nvml.probe import Probe

__all__ = ["fast", "static"]

_COUNTERS = (
    "pcie_replays_total",
    "pcie_correctable_errors_total",
    "pcie_fatal_errors_total",
    "pcie_non_fatal_errors_total",
    "pcie_transmit_bytes_total",
    "pcie_receive_bytes_total",
)


def static(probe: Probe) -> dict[str, Any]:
    """The best link that the GPU and its slot can have together."""
    return {
        "pcie_max_generation": probe.value(
            "pcie_max_generation", probe.ask("nvmlDeviceGetMaxPcieLinkGeneration")
        ),
        "pcie_max_width": probe.value("pcie_max_width", probe.ask("nvmlDeviceGetMaxPcieLinkWidth")),
    }


def fast(probe: Probe) -> dict[str, Any]:
    """The link as it is (an idle GPU lowers its generation), errors and bytes.

    The bytes are counters. nvmlDeviceGetPcieThroughput is not asked: it waits 20 ms for each
    direction to measure a rate.
    """
    generation = probe.ask("nvmlDeviceGetCurrPcieLinkGeneration")
    width = probe.ask("nvmlDeviceGetCurrPcieLinkWidth")
    return {
        "pcie_generation": probe.value("pcie_generation", generation),
        "pcie_width": probe.value("pcie_width", width),
        **{name: probe.value(name, probe.field(name)) for name in _COUNTERS},
    }
