"""Role ``alertmanager``: tells people of alerts; runs on the group ``monitor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pyinfra import host

from farrier.converge import Absent, Directory, Text, Unit, packages, tree, units
from farrier.converge.listing import no_others
from farrier.converge.templates import render
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults
from roles.alertmanager.configuration import SECRETS, config_text, peers, secret_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.spec import HostSpec

__all__ = ["DEFAULTS", "alertmanager", "remove"]

DEFAULTS = Defaults(
    "alertmanager",
    "Debian's Alertmanager beside Prometheus on the monitor hosts: groups alerts by host and model,"
    " leaves out what follows from another alert, and tells the receivers of the inventory. It"
    " listens on loopback. Several monitor hosts share what was told and what is silenced over"
    " port 9094, so that one fault is told once.",
    (
        Default(
            "alertmanager_receivers",
            [],
            "Who is told: a list of `Webhook`, `Slack`, `PagerDuty` and `Mail` of `farrier.spec`,"
            " each for the severities that it names. With none, alerts are visible in Prometheus"
            " and nobody is told. See [monitoring](../monitoring.md).",
        ),
        Default(
            "alertmanager_group_wait",
            "30s",
            "How long the first alert of a group waits for others that come with it.",
        ),
        Default(
            "alertmanager_group_interval", "5m", "Time between two messages about a changed group."
        ),
        Default(
            "alertmanager_repeat_interval",
            "4h",
            "Time after which a group that still fires is told again.",
        ),
    ),
)

_TEMPLATES = Path(__file__).parent / "templates"
UNIT = "prometheus-alertmanager.service"
CONFIG = "/etc/prometheus/alertmanager.yml"
TEMPLATE = "/etc/prometheus/alertmanager_templates/farrier.tmpl"
RELOADED = "alertmanager-configuration"
"""The mark of what Alertmanager reads again without a restart."""
USER = "prometheus"
"""Debian's packages of Prometheus and of Alertmanager share it."""


@deploy("Alertmanager")
def alertmanager(spec: HostSpec, monitors: Sequence[HostSpec]) -> None:
    """Install it with the receivers of *spec*; *monitors* are all hosts of the group."""
    settings = DEFAULTS.read(host.data)
    packages(name="Package", names=["prometheus-alertmanager"])
    tree(
        Text(
            "/etc/default/prometheus-alertmanager",
            render(_TEMPLATES / "default.j2", peers=peers(spec, monitors)),
        ),
        name="Arguments",
        applied=UNIT,
    )
    files = secret_files(spec)
    tree(
        Directory(SECRETS, mode="700", user=USER, group=USER),
        *(
            Text(path, secret, mode="600", user=USER, group=USER, secret=True)
            for path, secret in files.items()
        ),
        Text(TEMPLATE, (_TEMPLATES / "farrier.tmpl").read_text(encoding="utf-8")),
        Text(
            CONFIG,
            config_text(spec, settings),
            mode="600",
            user=USER,
            group=USER,
            secret=bool(spec.receiver_secrets),
        ),
        name="Receivers",
        applied=RELOADED,
    )
    no_others(
        SECRETS,
        sorted(path.rpartition("/")[2] for path in files),
        applied=RELOADED,
        name="Secrets of before",
    )
    check = f"amtool check-config {CONFIG}"
    units(
        Unit(UNIT, apply="restart", check=check),
        Unit(UNIT, apply="reload", check=check, mark=RELOADED),
        name="Service",
    )


@deploy("Remove Alertmanager")
def remove() -> None:
    """Stop it and take receivers and secrets away; the package and its silences stay."""
    units(Unit(UNIT, stopped=True), name="Service")
    tree(
        Absent(CONFIG),
        Absent(TEMPLATE),
        Absent(SECRETS),
        Absent(f"/var/lib/farrier/applied/{RELOADED}"),
        Absent(f"/var/lib/farrier/applied/{UNIT}"),
        name="Receivers and marks",
    )
