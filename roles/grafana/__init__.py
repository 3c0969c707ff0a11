"""Role ``grafana``: pictures of what Prometheus has; on the group ``monitor``, where asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pyinfra import host

from farrier.converge import Absent, Directory, Text, Unit, drop_in, packages, tree, units
from farrier.converge.apt_sources import AptSource, apt_source, no_apt_source
from farrier.converge.listing import no_others
from farrier.converge.templates import render
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults

if TYPE_CHECKING:
    from farrier.spec import HostSpec

__all__ = ["DASHBOARDS", "DEFAULTS", "grafana", "remove"]

DEFAULTS = Defaults(
    "grafana",
    "Grafana from its own package repository, with Prometheus as its source and four dashboards:"
    " the fleet, the gateway, a host, a model. Off unless asked for, and on loopback unless told"
    " otherwise: reach it through an SSH tunnel ([monitoring](../monitoring.md)).",
    (
        Default("grafana", False, "Whether the host has it."),
        Default(
            "grafana_admin_password_file",
            None,
            "A file on your machine (mode 600) with the password of its user `admin`. Grafana"
            " takes it at its first start only.",
        ),
        Default("grafana_address", "127.0.0.1", "Address that it listens on."),
        Default("grafana_port", 3000, "Port that it listens on."),
        Default(
            "grafana_repo_url", "https://apt.grafana.com", "The repository, or a mirror of it."
        ),
        Default(
            "grafana_repo_key_url",
            "https://apt.grafana.com/gpg.key",
            "Where the repository's key is.",
        ),
        Default(
            "grafana_repo_fingerprint",
            "B53AE77BADB630A683046005963FA27710458545",
            "Fingerprint of that key; another one is refused.",
        ),
        Default("grafana_repo_suite", "stable", "The repository's suite; `/` for a flat mirror."),
        Default("grafana_repo_components", ["main"], "Its components; none for a flat mirror."),
        Default(
            "grafana_repo_proxy",
            None,
            "`http://host:port` through which apt reaches the repository.",
        ),
    ),
)

_TEMPLATES = Path(__file__).parent / "templates"
DASHBOARDS = Path(__file__).parent / "dashboards"
UNIT = "grafana-server.service"
DROP_IN = drop_in(UNIT)
HOME = "/etc/grafana/farrier"
PASSWORD = f"{HOME}/admin_password"


@deploy("Grafana")
def grafana(spec: HostSpec) -> None:
    """Install it where the inventory asks for it."""
    settings = DEFAULTS.read(host.data)
    if not settings["grafana"]:
        return
    apt_source(_source(), name="Repository")
    packages(name="Package", names=["grafana"])
    dashboards = {path.name: path.read_text(encoding="utf-8") for path in DASHBOARDS.glob("*.json")}
    tree(
        Directory(HOME),
        Text(
            PASSWORD,
            spec.grafana_secrets["password"],
            mode="600",
            user="grafana",
            group="grafana",
            secret=True,
        ),
        Directory(f"{HOME}/dashboards"),
        *(Text(f"{HOME}/dashboards/{name}", text) for name, text in sorted(dashboards.items())),
        Directory(f"{HOME}/provisioning"),
        *(
            Text(
                f"{HOME}/provisioning/{kind}/farrier.yaml",
                render(_TEMPLATES / f"{kind}.yaml.j2", home=HOME),
            )
            for kind in ("dashboards", "datasources")
        ),
        Directory(DROP_IN.rpartition("/")[0]),
        Text(DROP_IN, render(_TEMPLATES / "farrier.conf.j2", settings=settings, home=HOME)),
        name="Configuration",
        applied=UNIT,
    )
    no_others(f"{HOME}/dashboards", sorted(dashboards), name="Dashboards of before", applied=UNIT)
    units(Unit(UNIT, apply="restart"), name="Service")


def _source() -> AptSource:
    settings = DEFAULTS.read(host.data)
    return AptSource(
        "grafana",
        settings["grafana_repo_url"],
        settings["grafana_repo_key_url"],
        settings["grafana_repo_fingerprint"],
        suite=settings["grafana_repo_suite"],
        components=tuple(settings["grafana_repo_components"]),
        proxy=settings["grafana_repo_proxy"],
    )


@deploy("Remove Grafana")
def remove() -> None:
    """Stop it, take its configuration and repository away; package and its database stay."""
    units(Unit(UNIT, stopped=True), name="Service")
    tree(
        Absent(DROP_IN),
        Absent(HOME),
        Absent(f"/var/lib/farrier/applied/{UNIT}"),
        name="Configuration",
    )
    no_apt_source(_source(), name="Repository")
