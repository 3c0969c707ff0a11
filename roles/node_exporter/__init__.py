"""Role ``node_exporter``: the distribution's Prometheus node exporter."""

from __future__ import annotations

from farrier.converge import Unit, packages, units
from farrier.converge.typed import deploy
from farrier.defaults import Defaults

__all__ = ["DEFAULTS", "node_exporter", "remove"]

DEFAULTS = Defaults(
    "node_exporter",
    "Debian's `prometheus-node-exporter` with its own defaults, on port 9100 of every host.",
    (),
)

UNIT = "prometheus-node-exporter.service"


@deploy("Node exporter")
def node_exporter() -> None:
    """Install and run it."""
    packages(name="Package", names=["prometheus-node-exporter"])
    units(Unit(UNIT), name="Service")


@deploy("Remove node exporter")
def remove() -> None:
    """Stop it; the package stays."""
    units(Unit(UNIT, stopped=True), name="Service")
