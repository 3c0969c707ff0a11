"""The ways to an engine that are compared: the host's own nginx, and instances that do less."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.bench.onehost import HERE, REPLICAS, OneHost, OneHostError

__all__ = ["BARE", "DIRECT", "KEPT", "NO_GATE", "NO_LOG", "ROLE", "Way", "lay", "start"]

_COMPLETION = (
    '{"id":"stand-in","object":"chat.completion","created":0,"model":"m1","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"the stand-in answers at once"},"finish_reason":'
    '"length"}],"usage":{"prompt_tokens":90,"completion_tokens":5,"total_tokens":95}}'
)
_FRAME = """include /etc/nginx/modules-enabled/*.conf;
user www-data; worker_processes auto; worker_rlimit_nofile 16384; pid {pid};
error_log {here}/nginx-error.log; events {{ worker_connections 8192; }}
http {{ access_log off; default_type application/json;
variables_hash_max_size 4096; map_hash_bucket_size 256; map_hash_max_size 65536; {inside} }}
"""


@dataclass(frozen=True)
class Way:
    """One way to the engine: *words* for the table, where it listens, which unit its nginx is.

    *beyond* are the units of further proxies on the way.
    """

    words: str
    port: int
    unit: str | None
    prefix: str = ""
    beyond: tuple[str, ...] = ()

    @property
    def units(self) -> tuple[str, ...]:
        """The units of all proxies on the way."""
        return (*((self.unit,) if self.unit else ()), *self.beyond)


ROLE = Way("**nginx as the role configures it**", 8080, "nginx.service", "/replicas/{}")
NO_GATE = Way("the same without the gate's test", 8201, "bench-nogate.service", "/replicas/{}")
NO_LOG = Way("the same without the log", 8202, "bench-nolog.service", "/replicas/{}")
KEPT = Way(
    "the same with 64 connections to the engine kept", 8203, "bench-kept.service", "/replicas/{}"
)
BARE = Way(
    "an nginx that does nothing but `proxy_pass`", 8204, "bench-bare.service", "/replicas/{}"
)
DIRECT = Way("the engine directly", 0, None)

Edit = tuple[str, str]
EDITS: Mapping[Way, Sequence[Edit]] = {
    NO_GATE: [(r"if \(!-f [^)]*\) \{[^}]*\}", "")],
    NO_LOG: [(r"access_log [^;]*;", "access_log off;")],
    KEPT: [
        (r"proxy_pass http://127\.0\.0\.1:(\d+)", r"proxy_pass http://engine_\1"),
        (r"proxy_set_header Connection close", 'proxy_set_header Connection ""'),
    ],
}


def lay(host: OneHost, engine: int) -> None:
    """Start every instance but the host's own, and a stand-in at the port *engine*.

    The stand-in is an nginx that answers at once, so it is no bottleneck.
    """
    answer = f"server {{ listen 127.0.0.1:{engine}; return 200 '{_COMPLETION}'; }}"
    _nginx(host, "bench-posts.service", answer)
    site = host.root("cat /etc/nginx/conf.d/farrier.conf")
    for way, edits in EDITS.items():
        assert way.unit
        _nginx(host, way.unit, _edited(site, way, edits))
    _nginx(host, "bench-bare.service", _bare())


def _edited(site: str, way: Way, edits: Sequence[Edit]) -> str:
    """The role's *site* for *way*. Raises OneHostError where an edit finds nothing to change."""
    moved: Sequence[Edit] = [
        (r"listen 0\.0\.0\.0:8080;", f"listen 127.0.0.1:{way.port};"),
        (r"listen \[::\]:8080;", ""),
        (r"/var/log/nginx/farrier-access\.log", f"/var/log/nginx/{way.unit}.log"),
    ]
    for pattern, replacement in (*moved, *edits):
        site, times = re.subn(pattern, replacement, site)
        if not times:
            raise OneHostError(
                f"the role's nginx configuration has no {pattern}: tests/bench/gating"
            )
    upstreams = "".join(
        f"upstream engine_{port} {{ server 127.0.0.1:{port}; keepalive 64; }}\n"
        for port in REPLICAS.values()
    )
    return (upstreams if "engine_" in site else "") + site


def _bare() -> str:
    places = "".join(
        f"location /replicas/{name}/ {{ proxy_pass http://127.0.0.1:{port}/; }}\n"
        for name, port in REPLICAS.items()
    )
    settings = (
        "proxy_http_version 1.1; proxy_set_header Connection close; proxy_buffering off;"
        " proxy_request_buffering off;"
    )
    return f"server {{ listen 127.0.0.1:{BARE.port}; {settings} {places} }}"


def _nginx(host: OneHost, unit: str, inside: str) -> None:
    file = f"{HERE}/{unit}.conf"
    host.put(file, _FRAME.format(pid=f"/run/{unit}.pid", here=HERE, inside=inside))
    start(host, unit, f"/usr/sbin/nginx -c {file} -g 'daemon off;'")


def start(host: OneHost, unit: str, command: str) -> None:
    """Run *command* as the transient *unit*."""
    host.root(f"systemd-run -q --collect --unit={unit} -p LimitNOFILE=65536 {command}")
