"""Role ``prometheus``: scrapes every host of the inventory; runs on the group ``monitor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra import host

from farrier.converge import Absent, Directory, Text, Unit, packages, tree, units
from farrier.converge.listing import no_others
from farrier.converge.templates import render
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults
from roles.prometheus.rules import rule_texts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from farrier.spec import HostSpec

__all__ = ["DEFAULTS", "HAPROXY_KEPT", "config_text", "prometheus", "remove"]

DEFAULTS = Defaults(
    "prometheus",
    "Debian's Prometheus on port 9090 of the monitor hosts, with every host of the inventory as a"
    " target: its node exporter and its agent, and on gateways HAProxy. With Farrier's alert and"
    " recording rules in `/etc/prometheus/rules/farrier-*.yml`, beside which yours may stand, and"
    " the host's own Alertmanager as where alerts go. Changed rules and targets are reloaded.",
    (
        Default("prometheus_scrape_interval", "15s", "Time between two scrapes of a target."),
        Default(
            "prometheus_agent_scrape",
            {},
            "How agents with an `agent_web_config` are scraped, in the words of Prometheus:"
            " `{'scheme': 'https', 'tls_config': {'ca_file': …}, 'basic_auth': {'username': …,"
            " 'password_file': …}}`; the files are on the monitor host.",
        ),
        Default(
            "prometheus_haproxy_port",
            8405,
            "Port of HAProxy's own metrics on gateways: their `gateway_metrics_port`.",
        ),
        Default("prometheus_retention", "15d", "How long samples are kept."),
        Default("prometheus_retention_size", "10GB", "How much disk they may take at the most."),
        Default(
            "prometheus_storage",
            "/var/lib/prometheus/metrics2",
            "Directory of the samples; the user prometheus has to own it.",
        ),
        Default(
            "prometheus_runbook_url",
            "docs/runbooks",
            "Address under which people who are told of alerts can read this project's"
            " `docs/runbooks`: each alert links to its page there. The default only names the page"
            " in your checkout.",
        ),
    ),
)

_TEMPLATES = Path(__file__).parent / "templates"
UNIT = "prometheus.service"
CONFIG = "/etc/prometheus/prometheus.yml"
RULES = "/etc/prometheus/rules"
HAPROXY_KEPT = (
    "haproxy_(process_(build_info|start_time_seconds|max_connections|current_connections)"
    "|frontend_(status|current_sessions|http_requests_total|http_responses_total|bytes_.*_total)"
    "|backend_(active_servers|current_queue|current_sessions|http_responses_total"
    "|retry_warnings_total|redispatch_warnings_total|connection_errors_total)"
    "|server_(status|weight|current_sessions|current_queue|http_responses_total"
    "|connection_errors_total|check_failures_total|check_duration_seconds))"
)
"""The families of HAProxy's exporter that are kept."""
RELOADED = "prometheus-configuration"
"""The mark of what Prometheus reads again without a restart."""


@deploy("Prometheus")
def prometheus(fleet: Sequence[HostSpec]) -> None:
    """Install it with all hosts of *fleet* as targets."""
    settings = DEFAULTS.read(host.data)
    packages(name="Package", names=["prometheus"])
    tree(
        Text("/etc/default/prometheus", render(_TEMPLATES / "default.j2", settings=settings)),
        name="Arguments",
        applied=UNIT,
    )
    tree(
        Directory(RULES),
        *(
            Text(f"{RULES}/{name}", text)
            for name, text in rule_texts(settings["prometheus_runbook_url"]).items()
        ),
        Text(CONFIG, config_text(fleet, settings)),
        name="Targets and rules",
        applied=RELOADED,
    )
    no_others(
        RULES,
        sorted(rule_texts("")),
        prefix="farrier-",
        applied=RELOADED,
        name="Rules of before",
    )
    # check config reads the rules too; a reload with wrong ones would say so in the journal alone
    check = f"promtool check config {CONFIG}"
    units(
        Unit(UNIT, apply="restart", check=check),
        Unit(UNIT, apply="reload", check=check, mark=RELOADED),
        name="Service",
    )


def config_text(fleet: Sequence[HostSpec], settings: Mapping[str, Any]) -> str:
    """``prometheus.yml``: what is scraped, and where the rules are."""
    return render(
        _TEMPLATES / "prometheus.yml.j2",
        fleet=fleet,
        gateways=[one for one in fleet if "gateway" in one.groups],
        settings=settings,
        rules=RULES,
        haproxy_kept=HAPROXY_KEPT,
    )


@deploy("Remove Prometheus")
def remove() -> None:
    """Stop it and take the rules away; the package and the samples stay."""
    units(Unit(UNIT, stopped=True), name="Service")
    tree(
        *(Absent(f"{RULES}/{name}") for name in rule_texts("")),
        Absent(f"/var/lib/farrier/applied/{RELOADED}"),
        Absent(f"/var/lib/farrier/applied/{UNIT}"),
        name="Rules and marks",
    )
