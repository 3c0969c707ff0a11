"""What gateway and nginx together add to a request, against the engine directly: one box, one run.

The host is group ``gpu`` and group ``gateway`` at once, so that clients, HAProxy, nginx and engine
share one clock and no network. Keys, limits and logs are on: the client's key has limits that are
never reached.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench import pages
from tests.bench.figures import table
from tests.bench.gating import measuring, ways
from tests.bench.gating.measuring import SECONDS, STREAMS, Streams, first_line, paced, wrk
from tests.bench.gating.ways import DIRECT, ROLE, Way
from tests.bench.onehost import HERE, REPLICAS, OneHost, converge
from tests.bench.spread import quantile, span

__all__ = ["gateway"]

ROUNDS, STREAM_ROUNDS = 5, 3
CROWD = 8
KEY = "bench-0123456789abcdefghij"
POSTS, PACED, BURSTS = (REPLICAS[name] for name in ("m1", "m2", "m3"))

NGINX = Way("the host's nginx, as the role configures it", ROLE.port, ROLE.unit, ROLE.prefix)
GATEWAY = Way("**gateway and nginx**", 80, "nginx.service", "", ("haproxy.service",))
PLAIN = Way(
    "a HAProxy that does nothing but pass on, and nginx",
    8205,
    "nginx.service",
    "/replicas/{}",
    ("bench-haproxy.service",),
)
WAYS = (DIRECT, NGINX, PLAIN, GATEWAY)

_PLAIN = f"""global
    maxconn 4096
defaults
    mode http
    timeout connect 2s
    timeout client 1h
    timeout server 1h
frontend in
    bind 127.0.0.1:{PLAIN.port}
    default_backend host
backend host
    server nginx 127.0.0.1:{NGINX.port}
"""


@dataclass(frozen=True)
class Posts:
    """One run of short POSTs over one way: microseconds, requests a second."""

    p50: float
    p99: float
    rate: float
    crowd_p99: float
    cpu: float


def gateway(host: OneHost, say: Callable[[str], None]) -> None:
    """Measure it, and write its section."""
    host.root("apt-get -qq update && apt-get -qqy install --no-install-recommends wrk")
    with tempfile.TemporaryDirectory(prefix="farrier-bench-") as scratch:
        keys = Path(scratch, "keys.toml")
        limits = "requests_per_minute = 1000000\nstreams = 60000"
        keys.write_text(f'[keys.bench]\nkey = "{KEY}"\n{limits}\n')
        keys.chmod(0o600)
        converge(host.lab, Path(scratch), say, gateway=True, data={"api_keys_file": str(keys)})
    host.key = KEY
    written = pages.written(
        "make bench PART=gateway",
        f"{host.versions()}, {first_line(host, 'haproxy -v')}, {first_line(host, 'wrk -v')}",
    )
    try:
        _prepare(host)
        posts = _posts(host, say)
        streams = _streams(host, say)
    finally:
        host.root("systemctl stop 'bench-*'; systemctl start farrier-agent", check=False)
        host.root("rm -f /run/farrier/open/*", check=False)
        host.root("systemctl start " + " ".join(f"engine-{one}" for one in REPLICAS), check=False)
    pages.rewrite("gateway", _text(written, posts, streams))


def _prepare(host: OneHost) -> None:
    measuring.put(host, PACED, BURSTS)
    ways.lay(host, POSTS)
    host.put(f"{HERE}/haproxy.cfg", _PLAIN)
    ways.start(host, "bench-haproxy.service", f"/usr/sbin/haproxy -db -f {HERE}/haproxy.cfg")
    host.root("touch " + " ".join(f"/run/farrier/open/{name}" for name in REPLICAS))


def _posts(host: OneHost, say: Callable[[str], None]) -> dict[Way, list[Posts]]:
    runs: dict[Way, list[Posts]] = {way: [] for way in WAYS}
    for number in range(ROUNDS + 1):  # the first one warms up
        for way in WAYS:
            alone, _ = wrk(host, way, POSTS, "m1", 1)
            crowd, cpu = wrk(host, way, POSTS, "m1", CROWD)
            run = Posts(
                alone["p50_us"],
                alone["p99_us"],
                crowd["requests"] / crowd["seconds"],
                crowd["p99_us"],
                cpu / crowd["requests"] * 1e6,
            )
            if number:
                runs[way].append(run)
            say(
                f"posts {number or 'warm-up'}: {run.p50:5.0f} µs, {run.rate:7.0f}/s, proxies"
                f" {run.cpu:5.1f} µs each: {way.words}"
            )
    return runs


def _streams(host: OneHost, say: Callable[[str], None]) -> dict[Way, list[Streams]]:
    runs: dict[Way, list[Streams]] = {way: [] for way in (DIRECT, NGINX, GATEWAY)}
    for _ in range(STREAM_ROUNDS):
        for way, done in runs.items():
            done.append(run := paced(host, way, PACED, "m2"))
            say(
                f"streams: first byte {median(run.first) * 1e3:.2f} ms, under way"
                f" {median(run.under_way) * 1e6:.0f} µs, proxies {run.cpu * 1e6:.1f} µs each:"
                f" {way.words}"
            )
    return runs


def _text(
    written: str, posts: Mapping[Way, Sequence[Posts]], streams: Mapping[Way, Sequence[Streams]]
) -> str:
    direct = posts[DIRECT]

    def added(way: Way, of: Callable[[Posts], float]) -> str:
        pairs = zip(posts[way], direct, strict=True)
        return "" if way is DIRECT else span([of(run) - of(base) for run, base in pairs], 0)

    rows = [
        [
            way.words,
            span([run.p50 for run in runs], 0),
            added(way, lambda run: run.p50),
            added(way, lambda run: run.p99),
            span([run.rate for run in runs], 0),
            span([run.crowd_p99 for run in runs], 0),
            "" if way is DIRECT else span([run.cpu for run in runs], 0),
        ]
        for way, runs in posts.items()
    ]
    head = [
        f"short POSTs, {ROUNDS} runs of {SECONDS} s",
        "one client, p50, µs",
        "added to p50, µs",
        "added to p99, µs",
        f"{CROWD} clients, requests/s",
        "p99, µs",
        "proxies' CPU for a request, µs",
    ]
    stream_rows = [
        [
            way.words,
            span([quantile(run.first, 0.5) * 1e3 for run in runs]),
            span([quantile(run.first, 0.99) * 1e3 for run in runs]),
            span([quantile(run.under_way, 0.5) * 1e6 for run in runs], 0),
            span([quantile(run.under_way, 0.99) * 1e6 for run in runs], 0),
            "" if way is DIRECT else span([run.cpu * 1e6 for run in runs], 0),
        ]
        for way, runs in streams.items()
    ]
    stream_head = [
        f"{STREAMS} streams, {STREAM_ROUNDS} runs",
        "first byte p50, ms",
        "p99, ms",
        "an event under way p50, µs",
        "p99, µs",
        "proxies' CPU for an event, µs",
    ]
    gap = median(run.p50 - base.p50 for run, base in zip(posts[GATEWAY], direct, strict=True))
    return "\n\n".join(
        [
            written,
            table(head, rows),
            f"Aim: at most 500 µs added to the p50 of one client; here {gap:.0f} µs.",
            table(stream_head, stream_rows),
            "Medians of the runs, in brackets the smallest and the largest; what is added is of the"
            f" same round. {pages.ended()}",
        ]
    )
