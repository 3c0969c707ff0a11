"""Role ``prometheus``: scrapes every host of the inventory; runs on the group ``monitor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pyinfra import host

from farrier.converge import Absent, Text, Unit, packages, tree, units
from farrier.converge.templates import render
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.spec import HostSpec

__all__ = ["DEFAULTS", "prometheus", "remove"]

DEFAULTS = Defaults(
    "prometheus",
    "Debian's Prometheus on port 9090 of the monitor hosts, with every host of the inventory as a"
    " target: its node exporter and its agent.",
    (
        Default("prometheus_scrape_interval", "15s", "Time between two scrapes of a target."),
        Default("prometheus_retention", "15d", "How long samples are kept."),
        Default("prometheus_retention_size", "10GB", "How much disk they may take at the most."),
        Default(
            "prometheus_storage",
            "/var/lib/prometheus/metrics2",
            "Directory of the samples; the user prometheus has to own it.",
        ),
    ),
)

_TEMPLATES = Path(__file__).parent / "templates"
CONFIG = "/etc/prometheus/prometheus.yml"


@deploy("Prometheus")
def prometheus(fleet: Sequence[HostSpec]) -> None:
    """Install it with all hosts of *fleet* as targets."""
    settings = DEFAULTS.read(host.data)
    packages(name="Package", names=["prometheus"])
    tree(
        Text(CONFIG, render(_TEMPLATES / "prometheus.yml.j2", fleet=fleet, settings=settings)),
        Text("/etc/default/prometheus", render(_TEMPLATES / "default.j2", settings=settings)),
        name="Targets",
        applied="prometheus.service",
    )
    units(
        Unit("prometheus.service", apply="restart", check=f"promtool check config {CONFIG}"),
        name="Service",
    )


@deploy("Remove Prometheus")
def remove() -> None:
    """Stop it; the package and the samples stay."""
    units(Unit("prometheus.service", stopped=True), name="Service")
    tree(Absent("/var/lib/farrier/applied/prometheus.service"), name="Mark")
