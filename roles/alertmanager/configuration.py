"""Alertmanager's configuration, made from the inventory's receivers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farrier.converge.templates import render
from farrier.spec.receivers import SEVERITIES, Mail, PagerDuty, Receiver, Slack, Webhook

if TYPE_CHECKING:
    from farrier.spec import HostSpec

__all__ = ["CLUSTER_PORT", "SECRETS", "config_text", "peers", "secret_files"]

_TEMPLATE = Path(__file__).parent / "templates" / "alertmanager.yml.j2"
SECRETS = "/etc/prometheus/farrier-secrets"
CLUSTER_PORT = 9094


def peers(spec: HostSpec, monitors: Sequence[HostSpec]) -> list[str]:
    """``address:port`` of the other monitors' Alertmanagers; none where *spec* is the only one."""
    return [
        f"[{one.address}]:{CLUSTER_PORT}" if ":" in one.address else f"{one.address}:{CLUSTER_PORT}"
        for one in monitors
        if one.name != spec.name
    ]


def secret_files(spec: HostSpec) -> dict[str, str]:
    """The files with secrets by their path on the host, with what they hold."""
    return {
        _path(one, field): spec.receiver_secrets[f"{one.name}.{field}"]
        for one in spec.receivers
        for field in one.SECRETS
        if one[field] is not None and not _inline(one, field)
    }


def config_text(spec: HostSpec, settings: Mapping[str, Any]) -> str:
    """``alertmanager.yml``."""
    return render(
        _TEMPLATE,
        settings=settings,
        severities=SEVERITIES,
        receivers=[_entry(one, spec.receiver_secrets) for one in spec.receivers],
    )


def _path(one: Receiver, field: str) -> str:
    return f"{SECRETS}/{one.name}.{field}"


def _inline(one: Receiver, field: str) -> bool:
    """Whether the secret has to stand in alertmanager.yml, which is closed to others for that.

    Alertmanager 0.25 (Debian 12) has no url_file for webhooks; that came with 0.26.
    """
    return isinstance(one, Webhook) and field == "url_file"


def _entry(one: Receiver, secrets: Mapping[str, str]) -> dict[str, Any]:
    """A receiver as the template lays it out: its kind's key, and that one's settings."""
    settings: dict[str, Any] = {"send_resolved": True}
    match one:
        case Webhook():
            kind = "webhook_configs"
            settings["url"] = one["url"] or secrets[f"{one.name}.url_file"]
            if one["token_file"] is not None:
                settings["http_config"] = {
                    "authorization": {"credentials_file": _path(one, "token_file")}
                }
        case Slack():
            kind = "slack_configs"
            settings |= {
                "api_url_file": _path(one, "url_file"),
                "title": '{{ template "farrier.title" . }}',
                "text": '{{ template "farrier.text" . }}',
            }
            if one["channel"] is not None:
                settings["channel"] = one["channel"]
        case PagerDuty():
            kind = "pagerduty_configs"
            settings |= {
                "routing_key_file": _path(one, "key_file"),
                "description": '{{ template "farrier.title" . }}',
                "details": {"text": '{{ template "farrier.text" . }}'},
                "severity": "{{ .CommonLabels.severity }}",
            }
        case Mail():
            kind = "email_configs"
            settings |= {
                "to": one["to"],
                "from": one["sender"],
                "smarthost": one["smarthost"],
                "require_tls": not one["plain"],
                "headers": {"Subject": '{{ template "farrier.title" . }}'},
                "html": "",
                "text": '{{ template "farrier.text" . }}',
            }
            if one["user"] is not None:
                settings["auth_username"] = one["user"]
                settings["auth_password_file"] = _path(one, "password_file")
        case _:  # pragma: no cover - the inventory was checked
            raise TypeError(f"no such receiver: {one!r}")
    return {"name": one.name, "severities": list(one.severities), kind: [settings], "kind": kind}
