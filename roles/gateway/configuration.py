"""HAProxy's configuration and its maps, as text; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farrier.converge.templates import render

if TYPE_CHECKING:
    from farrier.spec import ApiKey
    from roles.gateway.routes import Route

__all__ = ["SHARES", "Bounds", "Places", "bounds", "config_text", "maps"]

_TEMPLATE = Path(__file__).parent / "templates" / "haproxy.cfg.j2"

HEADERS_KIB = 64
"""Of each buffer: a request's head, and HAProxy's own notes beside the largest body."""
TOKENS_KIB = 32
"""Of each request, for the filter that reads its tokens (measured: 30)."""
IDLE_KIB = 24
"""What a connection takes that has no buffer, TLS included; rounded up."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are on the host; tests put them elsewhere.

    *user* None: HAProxy stays whoever starts it, and its root directory is the host's. *logs* are
    targets of its directive ``log``, with their length and format.
    """

    maps: str = "/etc/haproxy/farrier"
    admin: str = "/run/haproxy/admin.sock"
    state: str = "/var/lib/haproxy/farrier.state"
    certificate: str = "/etc/haproxy/farrier/tls.pem"
    user: str | None = "haproxy"
    root: str = "/var/lib/haproxy"
    logs: tuple[str, ...] = ("stdout len 8192 format raw",)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What keeps HAProxy's memory within *memory_mib* MiB, old process and new one together.

    *buffer* is a buffer's size in bytes, *requests* how many requests may be in flight,
    *connections* how many connections there may be.
    """

    memory_mib: int
    buffer: int
    body: int
    requests: int
    connections: int
    threads: int


def bounds(settings: Mapping[str, Any], memory_mib: int, cpus: int, *, shared: bool) -> Bounds:
    """The bounds for a host with *memory_mib* MiB and *cpus*; *shared*: engines run on it too.

    A request holds one buffer while its body is read and one more that is kept for a second try;
    a reload has two processes with as many requests each for as long as streams last.
    """
    percent = settings["gateway_memory_percent"] or (20 if shared else 60)
    ours = memory_mib * percent // 100
    body = settings["gateway_max_body_kib"] * 1024
    buffer = body + HEADERS_KIB * 1024
    process = ours * 1024 * 1024 // 2
    each = 2 * buffer + TOKENS_KIB * 1024
    requests = settings["gateway_max_requests"] or max(64, process * 3 // 4 // each)
    connections = max(2 * requests, process // 4 // (IDLE_KIB * 1024))
    return Bounds(
        memory_mib=ours,
        buffer=buffer,
        body=body,
        requests=requests,
        connections=min(connections, 200_000),
        threads=settings["gateway_threads"] or max(1, min(cpus, 8)),
    )


def config_text(
    routes: Sequence[Route],
    settings: Mapping[str, Any],
    limits: Bounds,
    *,
    open_access: bool = False,
    places: Places | None = None,
) -> str:
    """``haproxy.cfg``: the path of a request through the gateway, and its replicas."""
    return render(
        _TEMPLATE,
        routes=routes,
        settings=settings,
        limits=limits,
        open_access=open_access,
        places=places or Places(),
        affinity=affinity(settings["gateway_affinity"]),
    )


def affinity(wanted: str) -> str | None:
    """The sample of HAProxy that requests of one session share; None: none is asked for.

    Raises :class:`ValueError` for what is neither ``key`` nor ``user`` nor ``header NAME``.
    """
    if not wanted:
        return None
    kind, _, name = wanted.partition(" ")
    if wanted == "key":
        return "var(txn.key)"
    if wanted == "user":
        return "req.body,json_query('$.user')"
    if kind == "header" and name and name.replace("-", "").isalnum():
        return f"req.fhdr({name.lower()})"
    raise ValueError(
        f"gateway_affinity: {wanted!r} is none of 'key', 'user' (the field of the body) and"
        " 'header NAME', e.g. 'header X-Session-ID'"
    )


def maps(routes: Iterable[Route], keys: Mapping[str, ApiKey]) -> dict[str, str]:
    """The maps by the names of their files. ``keys.map`` holds hashes of keys and is secret."""
    routes = tuple(routes)
    named = sorted(keys.items())
    return {
        "keys.map": _map((key.sha256.lower(), name) for name, key in named),
        "models.map": _map((one, route.backend) for route in routes for one in route.names),
        "allowed.map": _map(
            (f"{name}|{one}", "yes")
            for name, key in named
            for route in routes
            for one in route.names
            if route.may_use(key, one)
        ),
        "requests_per_minute.map": _map(
            (name, key.requests_per_minute)
            for name, key in named
            if key.requests_per_minute is not None
        ),
        "streams.map": _map((name, key.streams) for name, key in named if key.streams is not None),
    }


SHARES = ("canaries.map", "shares.map")
"""Maps that the program ``share`` writes on the host; empty at first."""


def _map(entries: Iterable[tuple[str, object]]) -> str:
    lines = "".join(f"{key} {value}\n" for key, value in entries)
    return "# Written by Farrier's role gateway.\n" + lines
