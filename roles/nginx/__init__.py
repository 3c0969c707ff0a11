"""Role ``nginx``: the host's request path, with the gate of every replica and its API keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra import host

from farrier.converge import Absent, Directory, Text, Unit, drop_in, packages, tree, units
from farrier.converge.templates import render
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults
from roles.nginx.clients import clients, key_map
from roles.nginx.several import GROUP, ways

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from farrier.spec import HostSpec
    from roles.nginx.clients import Clients

__all__ = ["DEFAULTS", "clients_text", "nginx", "remove", "requests_socket", "site_text"]

DEFAULTS = Defaults(
    "nginx",
    "The distribution's nginx in front of the host's engines: who is let in, the gate of each"
    " replica, `/replicas/<replica>/v1/…`, and `/v1/…` for gateways, which name a replica, and for"
    " everybody where the host serves one model: of up to eight replicas, one whose gate is open.",
    (
        Default("nginx_port", 8080, "Port on which clients (and a gateway) reach the models."),
        Default(
            "nginx_addresses",
            ["0.0.0.0", "[::]"],  # noqa: S104
            "Addresses that it listens on; leave `[::]` out where the kernel has no IPv6.",
        ),
        Default(
            "nginx_clients",
            "",
            "Who is let in: `gateways`, the fleet's gateways only, by their address, while others"
            " get 403; `keys`, also clients with one of the host's API keys (or anybody, with"
            " `open_access`); empty: `gateways` where the fleet has any, else `keys`.",
        ),
        Default(
            "nginx_gateways",
            [],
            "More addresses or networks (`198.51.100.0/28`) that count as gateways, beside those of"
            " the hosts of group gateway: where these ask from other addresses than they are"
            " reached at. Who asks from there needs no key.",
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
KEYS = "/etc/nginx/farrier/keys.map"
KEYS_PROGRAM = "/etc/nginx/farrier/keys.js"
RESOLVE = "/etc/nginx/farrier/resolve"
DROP_IN = drop_in("nginx.service")
"""Makes a reload wait until it is done, and a stop or a restart cut nothing."""


@deploy("nginx")
def nginx(spec: HostSpec, gateways: Sequence[HostSpec] = ()) -> None:
    """Install nginx, its site for *spec*, and reload it if its configuration is good.

    *gateways* are the fleet's: their requests pass without a key.
    """
    settings = DEFAULTS.read(host.data)
    let_in = clients(spec, settings, gateways)
    packages(name="Package", names=["nginx", *(["libnginx-mod-http-js"] if let_in.keys else [])])
    tree(
        Directory("/etc/nginx/farrier", mode="700"),
        *_keys(spec, let_in),
        Text("/etc/nginx/farrier/clients.conf", clients_text(let_in), mode="600"),
        *_resolving(let_in),
        Text("/etc/nginx/nginx.conf", render(_TEMPLATES / "nginx.conf.j2", settings=settings)),
        Text("/etc/nginx/conf.d/farrier.conf", site_text(spec, settings, let_in)),
        Absent("/etc/nginx/sites-enabled/default"),
        Text(
            "/etc/nginx/farrier/reload",
            render(_TEMPLATES / "reload.sh.j2", resolve=RESOLVE if let_in.names else ""),
            mode="700",
        ),
        Text(
            "/etc/nginx/farrier/stop",
            render(_TEMPLATES / "stop.sh.j2", spec=spec, settings=settings),
            mode="700",
        ),
        Directory(DROP_IN.rpartition("/")[0]),
        Text(
            DROP_IN,
            render(
                _TEMPLATES / "nginx.service.conf.j2",
                settings=settings,
                resolve=RESOLVE if let_in.names else "",
            ),
        ),
        name="Configuration",
        applied="nginx.service",
    )
    check = "nginx -t -q"
    units(
        Unit(
            "nginx.service",
            apply="reload",
            check=f"{RESOLVE} && {check}" if let_in.names else check,
        ),
        name="Service",
    )


def _keys(spec: HostSpec, let_in: Clients) -> tuple[Text | Absent, ...]:
    """What nginx looks keys up in, where it has to."""
    if not let_in.keys:
        return Absent(KEYS), Absent(KEYS_PROGRAM)
    return (
        Text(KEYS, key_map(spec.api_keys), mode="600", secret=True),
        Text(KEYS_PROGRAM, (_TEMPLATES / "keys.js").read_text(), mode="644"),
    )


def _resolving(let_in: Clients) -> tuple[Text | Absent, ...]:
    """What finds the addresses of gateways that are known by name."""
    if not let_in.names:
        return Absent(RESOLVE), Absent("/etc/nginx/farrier/gateways.geo")
    return (Text(RESOLVE, render(_TEMPLATES / "resolve.sh.j2", clients=let_in), mode="700"),)


def clients_text(let_in: Clients) -> str:
    """The maps that tell who asks."""
    return render(_TEMPLATES / "clients.conf.j2", clients=let_in)


def site_text(spec: HostSpec, settings: Mapping[str, Any], let_in: Clients) -> str:
    """The host's site: its replicas, their gates, its logs."""
    return render(
        _TEMPLATES / "farrier.conf.j2",
        spec=spec,
        settings=settings,
        clients=let_in,
        gates=GATES,
        requests_socket=requests_socket(spec),
        ways=ways(spec.models),
        group=GROUP,
    )


def requests_socket(spec: HostSpec) -> str | None:
    """Where the host's agent counts nginx's requests; None where it does not."""
    told = spec.models and "requests" not in spec.agent.collectors_off
    return REQUESTS if told else None


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
