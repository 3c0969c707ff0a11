"""Role ``gateway``: the fleet's one endpoint, the distribution's HAProxy."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra import host

from farrier.converge import Absent, Directory, Text, Unit, drop_in, packages, tree, units
from farrier.converge.templates import render
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults
from roles.gateway.certificate import CertificateError, read_certificate
from roles.gateway.configuration import SHARES, Bounds, Places, affinity, bounds, config_text, maps
from roles.gateway.operations import fit, present
from roles.gateway.room import Room, RoomFact
from roles.gateway.routes import Route, routes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from farrier.spec import HostSpec

__all__ = ["DEFAULTS", "gateway", "remove", "run_text", "tls_address", "unit_text"]

DEFAULTS = Defaults(
    "gateway",
    "The distribution's HAProxy as the fleet's one endpoint: API keys with their limits, a"
    " request's model from its body or `X-Model`, and on to the replica with the fewest requests."
    " It follows the hosts' agents; reloading, restarting and upgrading it cuts no request."
    " [The gateway](../gateway.md) says what its answers mean.",
    (
        Default("gateway_port", 80, "Port for clients without TLS; 0: none."),
        Default("gateway_tls_port", 443, "Port for clients with TLS."),
        Default(
            "gateway_tls_certificate",
            "",
            "A file on your machine (mode 600) with the certificate, its chain and its key, in PEM;"
            " empty: no TLS.",
        ),
        Default(
            "gateway_addresses",
            ["0.0.0.0", "[::]"],  # noqa: S104
            "Addresses that it listens on; leave `[::]` out where the kernel has no IPv6.",
        ),
        Default(
            "gateway_max_body_kib",
            1024,
            "Largest body, in KiB, from which the model is read and which is kept for a second"
            " replica. Each request in flight takes up to two of them in memory. Larger bodies need"
            " the header `X-Model`.",
        ),
        Default(
            "gateway_upload_seconds", 300, "Longest time that a client may take to send a body."
        ),
        Default(
            "gateway_silence_seconds",
            3600,
            "Longest silence of a replica or a client within a request, which itself may last as"
            " long as it will.",
        ),
        Default(
            "gateway_lost_host_seconds",
            90,
            "How long a host's kernel may answer nothing before the host's requests are given up,"
            " as after a power cut: 502, or a stream that breaks off. At least 6.",
        ),
        Default("gateway_connect_seconds", 2, "Longest wait for a host to accept a connection."),
        Default(
            "gateway_keepalive_seconds",
            60,
            "How long a client's idle connection is kept; so long does a planned stop wait for it.",
        ),
        Default(
            "gateway_replica_requests",
            256,
            "Most requests in flight per replica and gateway; more wait in the queue.",
        ),
        Default(
            "gateway_queue_requests", 256, "Most requests that wait per model; one more gets 429."
        ),
        Default("gateway_queue_seconds", 30, "Longest wait in the queue; then 503."),
        Default(
            "gateway_weights",
            {},
            "Shares of replicas that differ from 100, as `{'gpu01:tiny': 50}`; 0 to 256.",
        ),
        Default(
            "gateway_affinity",
            "",
            "What keeps a session on one replica, for its prefix cache: `key`, `user` (the body's"
            " field) or `header NAME`. Empty: each request goes to the replica with the fewest.",
        ),
        Default(
            "gateway_affinity_balance",
            150,
            "With `gateway_affinity`: the percentage of the average load above which a replica's"
            " sessions go to the next one.",
        ),
        Default(
            "gateway_agent_milliseconds", 500, "Time between two questions to a replica's agent."
        ),
        Default(
            "gateway_count_tokens",
            True,
            "Whether it reads from answers how many tokens they used, for the log and the metrics."
            " It costs about 20 µs for each event of a stream.",
        ),
        Default("gateway_metrics_port", 8405, "Port of HAProxy's own `/metrics`."),
        Default("gateway_metrics_address", "0.0.0.0", "Address of it."),  # noqa: S104
        Default(
            "gateway_memory_percent",
            0,
            "Part of the host's memory that HAProxy may take, in percent; 0: 60, and 20 on a host"
            " that serves models itself. The number of requests in flight is made of it.",
        ),
        Default(
            "gateway_max_requests", 0, "Most requests in flight; 0: what the memory has room for."
        ),
        Default("gateway_threads", 0, "HAProxy's threads; 0: one for each CPU, at the most 8."),
        Default(
            "gateway_stop_seconds",
            1380,
            "Seconds that `systemctl stop haproxy` waits for the requests in flight before it cuts"
            " them, which is counted and said. A restart does not wait: the old one finishes.",
        ),
        Default(
            "gateway_hard_stop_after",
            "24h",
            "After a reload: how long the old process may finish its streams before they are cut.",
        ),
    ),
)

_TEMPLATES = Path(__file__).parent / "templates"
PLACES = Places(
    logs=(
        "unix@/dev/log len 8192 format local",
        "unix@/run/farrier/agent/gateway.sock len 8192 format raw",
    )
)
"""Both sockets, journald's and the agent's, are reached within HAProxy's root directory.

Not its standard output: of two threads that write there at once HAProxy drops the line of one, on a
busy host one in a thousand; a socket for datagrams is each thread's own (measured: 0 of 12,500).
"""
CONFIG = "/etc/haproxy/haproxy.cfg"
UNIT = "haproxy.service"
RESTARTED = "haproxy-unit"
"""The mark of what HAProxy takes only when it is started anew, which cuts nothing either."""
DROP_IN = drop_in(UNIT)
"""Makes a reload wait until it is done, and a stop or a restart cut nothing."""
NO_ROOM = Room(memory_mib=1024, cpus=1)
"""What is assumed of a host that did not answer; nothing is written on it then."""


@deploy("Gateway")
def gateway(spec: HostSpec, fleet: Iterable[HostSpec]) -> None:
    """Install HAProxy on *spec* with a way to every model of *fleet*; reload it if it is good."""
    settings = DEFAULTS.read(host.data)
    found, certificate, problems = _read(settings, fleet)
    fit(problems, name="Inventory")
    room = host.get_fact(RoomFact) or NO_ROOM
    limits = bounds(settings, room.memory_mib, room.cpus, shared=bool(spec.models))
    packages(name="Packages", names=["haproxy", "socat"])
    # Before the configuration: what a reload or a restart does has to be true before one is due.
    tree(
        Directory(PLACES.maps, mode="700"),
        *(
            Text(f"{PLACES.maps}/{name}", (_TEMPLATES / name).read_text(), mode="600")
            for name in ("usage.lua", "states.awk")
        ),
        Text(f"{PLACES.maps}/run", run_text(found, settings), mode="700"),
        Text(
            f"{PLACES.maps}/share",
            render(_TEMPLATES / "share.sh.j2", places=PLACES),
            mode="700",
        ),
        Directory(DROP_IN.rpartition("/")[0]),
        Text(DROP_IN, unit_text(spec, settings, limits)),
        name="Unit",
        applied=RESTARTED,
    )
    tree(
        *(
            Text(f"{PLACES.maps}/{name}", text, mode="600", secret=name == "keys.map")
            for name, text in maps(found, spec.api_keys).items()
        ),
        Text(PLACES.certificate, certificate, mode="600", secret=True)
        if certificate
        else Absent(PLACES.certificate),
        Text(
            CONFIG,
            config_text(found, settings, limits, open_access=spec.open_access, places=PLACES),
        ),
        name="Configuration",
        applied=UNIT,
    )
    check = f"/usr/sbin/haproxy -c -q -f {CONFIG}"
    present(*(f"{PLACES.maps}/{name}" for name in SHARES), name="Shares")
    units(
        Unit(UNIT, apply="restart", check=check, mark=RESTARTED),
        Unit(UNIT, apply="reload", check=check),
        name="Service",
    )


def tls_address(settings: Mapping[str, Any]) -> str | None:
    """Where the host itself reaches the gateway over TLS; None without."""
    addresses = settings["gateway_addresses"]
    if not settings["gateway_tls_certificate"] or not addresses:
        return None
    loopback = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104
    return f"{loopback.get(addresses[0], addresses[0])}:{settings['gateway_tls_port']}"


def _read(
    settings: Mapping[str, Any], fleet: Iterable[HostSpec]
) -> tuple[tuple[Route, ...], str, list[str]]:
    """The routes, the certificate with its key, and what is wrong with either."""
    problems = []
    hosts = tuple(fleet)
    found: tuple[Route, ...] = ()
    certificate = ""
    try:
        found = routes(hosts, settings["gateway_weights"])
    except ValueError as error:
        problems.append(str(error))
    try:
        affinity(settings["gateway_affinity"])
    except ValueError as error:
        problems.append(str(error))
    if file := settings["gateway_tls_certificate"]:
        try:
            now = datetime.datetime.now(datetime.UTC)
            certificate = read_certificate(Path(file).expanduser(), now)
        except CertificateError as error:
            problems.append(f"gateway_tls_certificate: {error}")
    return found, certificate, problems


def run_text(found: Sequence[Route], settings: Mapping[str, Any]) -> str:
    """The program behind systemd's start, reload and stop of HAProxy."""
    ports = sorted({server.port for route in found for server in route.servers})
    return render(
        _TEMPLATES / "run.sh.j2",
        settings=settings,
        places=PLACES,
        ports=" or ".join(f"dport = :{port}" for port in ports) or "dport = :0",
    )


def unit_text(spec: HostSpec, settings: Mapping[str, Any], limits: Bounds) -> str:
    """The drop-in of HAProxy's unit."""
    return render(
        _TEMPLATES / "haproxy.service.conf.j2",
        spec=spec,
        settings=settings,
        limits=limits,
        places=PLACES,
    )


@deploy("Remove the gateway")
def remove() -> None:
    """Stop HAProxy once its requests are over and take away what is ours; the package stays."""
    units(Unit(UNIT, stopped=True), name="Service")
    tree(
        Absent(CONFIG),
        Absent(DROP_IN),
        Absent(PLACES.maps),
        Absent(PLACES.state),
        name="Configuration",
        applied=UNIT,
    )
