"""Role ``nginx``: the host's request path, with the gate of every replica and its API keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra import host

from farrier.converge import Absent, Directory, Text, Unit, packages, tree, units
from farrier.converge.templates import render
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from farrier.spec import ApiKey, HostSpec

__all__ = ["DEFAULTS", "key_map", "nginx", "remove", "requests_socket", "site_text"]

DEFAULTS = Defaults(
    "nginx",
    "The distribution's nginx in front of the host's engines: API keys, the gate of each replica,"
    " `/replicas/<replica>/v1/…`, and `/v1/…` where the host serves one model with one replica.",
    (
        Default("nginx_port", 8080, "Port on which clients (and a gateway) reach the models."),
        Default(
            "nginx_addresses",
            ["0.0.0.0", "[::]"],  # noqa: S104
            "Addresses that it listens on; leave `[::]` out where the kernel has no IPv6.",
        ),
        Default(
            "nginx_max_body",
            "64m",
            "Largest request body, in nginx's notation; a larger one gets 413.",
        ),
        Default(
            "nginx_max_requests",
            512,
            "Most requests in flight per replica; one more gets 429 and Retry-After.",
        ),
        Default(
            "nginx_read_timeout",
            "3600s",
            "Longest silence of an engine within a response: prefill of a long prompt is silent.",
        ),
        Default("nginx_worker_connections", 8192, "Connections per worker; a stream takes two."),
        Default(
            "nginx_stop_seconds",
            1380,
            "Seconds that `systemctl stop nginx` waits for the requests in flight before it cuts"
            " them, which is counted and said. A restart does not wait: the old workers finish.",
        ),
        Default(
            "nginx_shutdown_seconds",
            10,
            "The same when the host goes down, once no request is in flight to an engine: time for"
            " clients that have not read all of their answers.",
        ),
    ),
)

_TEMPLATES = Path(__file__).parent / "templates"
GATES = "/run/farrier/open"
REQUESTS = "/run/farrier/agent/requests.sock"
"""As in the agent's configuration: the agent makes it."""
DROP_IN = "/etc/systemd/system/nginx.service.d/farrier.conf"
"""Makes a reload wait until it is done, and a stop or a restart cut nothing."""


@deploy("nginx")
def nginx(spec: HostSpec) -> None:
    """Install nginx, its sites for *spec*, and reload it if its configuration is good."""
    settings = DEFAULTS.read(host.data)
    packages(name="Package", names=["nginx"])
    tree(
        Directory("/etc/nginx/farrier", mode="700"),
        Text(
            "/etc/nginx/farrier/keys.map",
            key_map(spec.api_keys),
            mode="600",
            secret=True,
        ),
        Text("/etc/nginx/nginx.conf", render(_TEMPLATES / "nginx.conf.j2", settings=settings)),
        Text("/etc/nginx/conf.d/farrier.conf", site_text(spec, settings)),
        Absent("/etc/nginx/sites-enabled/default"),
        Text("/etc/nginx/farrier/reload", (_TEMPLATES / "reload.sh").read_text(), mode="700"),
        Text(
            "/etc/nginx/farrier/stop",
            render(_TEMPLATES / "stop.sh.j2", spec=spec, settings=settings),
            mode="700",
        ),
        Directory(DROP_IN.rpartition("/")[0]),
        Text(DROP_IN, render(_TEMPLATES / "nginx.service.conf.j2", settings=settings)),
        name="Configuration",
        applied="nginx.service",
    )
    units(
        Unit("nginx.service", apply="reload", check="nginx -t -q"),
        name="Service",
    )


def site_text(spec: HostSpec, settings: Mapping[str, Any]) -> str:
    """The host's site: its replicas, their gates, its logs."""
    return render(
        _TEMPLATES / "farrier.conf.j2",
        spec=spec,
        settings=settings,
        gates=GATES,
        requests_socket=requests_socket(spec),
    )


def requests_socket(spec: HostSpec) -> str | None:
    """Where the host's agent counts nginx's requests; None where it does not."""
    told = spec.models and "requests" not in spec.agent.collectors_off
    return REQUESTS if told else None


def key_map(keys: Mapping[str, ApiKey]) -> str:
    """nginx's map from an ``Authorization`` header to the key's name.

    Each entry is a regular expression, because nginx compares plain strings without their case.
    """
    lines = [
        f'"~^[Bb]earer {re.escape(key.key)}$" {name};\n'.replace("\\-", "-")
        for name, key in sorted(keys.items())
        if key.key is not None
    ]
    return "# Secret: API keys, written by Farrier's role nginx.\n" + "".join(lines)


@deploy("Remove nginx")
def remove() -> None:
    """Stop nginx and take away its configuration of ours; the package stays."""
    units(Unit("nginx.service", stopped=True), name="Service")
    tree(
        Absent("/etc/nginx/conf.d/farrier.conf"),
        Absent(DROP_IN),
        Absent("/etc/nginx/farrier"),
        name="Configuration",
        applied="nginx.service",
    )
