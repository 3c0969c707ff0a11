"""What the host's nginx costs a request: as the role configures it, and with parts left out.

Everything runs on the host: the engine's stand-ins, every nginx and the clients, over loopback. The
nginx with the role's configuration is the host's own; those that are compared with it are further
instances of it, whose configuration is the host's with one thing taken out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from tests.bench import pages
from tests.bench.figures import table
from tests.bench.gating import measuring, ways
from tests.bench.gating.measuring import (
    BURST,
    EVENTS,
    PACE,
    SECONDS,
    STREAMS,
    Streams,
    first_line,
    paced,
    wrk,
)
from tests.bench.gating.ways import BARE, DIRECT, KEPT, NO_GATE, NO_LOG, ROLE, Way
from tests.bench.onehost import REPLICAS, OneHost
from tests.bench.spread import quantile, span

__all__ = ["gate"]

ROUNDS, STREAM_ROUNDS = 9, 4

POSTS, PACED, BURSTS = (REPLICAS[name] for name in ("m1", "m2", "m3"))
"""The engines' ports; the stand-ins take the places of the replicas' engines there."""


@dataclass(frozen=True)
class Posts:
    """One run of short POSTs over one way: microseconds, requests a second."""

    alone_p50: float
    alone_p99: float
    rate: float
    crowd_p99: float
    cpu: float


def gate(host: OneHost, say: Callable[[str], None]) -> None:
    """Measure it, and write its section."""
    host.root("apt-get -qq update && apt-get -qqy install --no-install-recommends wrk")
    written = pages.written(
        "make bench PART=gate", f"{host.versions()}, {first_line(host, 'wrk -v')}"
    )
    try:
        _prepare(host)
        posts = _posts(host, say)
        streams, bursts = _streams(host, say)
    finally:
        _restore(host)
    pages.rewrite("gate", _text(written, posts, streams, bursts))


# -- what runs on the host -----------------------------------------------------------------------


def _prepare(host: OneHost) -> None:
    measuring.put(host, PACED, BURSTS)
    ways.lay(host, POSTS)
    host.root("touch " + " ".join(f"/run/farrier/open/{name}" for name in REPLICAS))


def _restore(host: OneHost) -> None:
    host.root("systemctl stop 'bench-*'", check=False)
    host.root("rm -f /run/farrier/open/*; systemctl start farrier-agent", check=False)
    host.root("systemctl start " + " ".join(f"engine-{one}" for one in REPLICAS), check=False)


# -- short POSTs ---------------------------------------------------------------------------------

WAYS = (DIRECT, BARE, KEPT, NO_LOG, NO_GATE, ROLE)


def _posts(host: OneHost, say: Callable[[str], None]) -> dict[Way, list[Posts]]:
    runs: dict[Way, list[Posts]] = {way: [] for way in WAYS}
    for number in range(ROUNDS + 1):  # the first one warms up
        for way in WAYS:
            alone, _ = wrk(host, way, POSTS, "m1", 1)
            crowd, cpu = wrk(host, way, POSTS, "m1", 8)
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
                f"posts {number or 'warm-up'}: {run.alone_p50:5.0f} µs, {run.rate:7.0f}/s, nginx"
                f" {run.cpu:5.1f} µs each: {way.words}"
            )
    return runs


# -- streams -------------------------------------------------------------------------------------


def _streams(
    host: OneHost, say: Callable[[str], None]
) -> tuple[dict[Way, list[Streams]], dict[Way, list[float]]]:
    runs: dict[Way, list[Streams]] = {way: [] for way in (DIRECT, BARE, NO_GATE, ROLE)}
    bursts: dict[Way, list[float]] = {way: [] for way in runs}
    for _ in range(STREAM_ROUNDS):
        for way, done in runs.items():
            done.append(run := paced(host, way, PACED, "m2"))
            said, _ = wrk(host, way, BURSTS, "m3", 8)
            bursts[way].append(said["requests"] / said["seconds"] * BURST)
            say(
                f"streams: first byte {median(run.first) * 1e3:.2f} ms, under way"
                f" {median(run.under_way) * 1e6:.0f} µs, nginx {run.cpu * 1e6:.1f} µs each,"
                f" {bursts[way][-1]:,.0f} events/s at most: {way.words}"
            )
    return runs, bursts


# -- the section ---------------------------------------------------------------------------------


def _text(
    written: str,
    posts: Mapping[Way, Sequence[Posts]],
    streams: Mapping[Way, Sequence[Streams]],
    bursts: Mapping[Way, Sequence[float]],
) -> str:
    direct = posts[DIRECT]
    rows = []
    for way, runs in posts.items():
        added = [run.alone_p50 - base.alone_p50 for run, base in zip(runs, direct, strict=True)]
        rows.append(
            [
                way.words,
                span([run.alone_p50 for run in runs], 0),
                span([run.alone_p99 for run in runs], 0),
                "" if way is DIRECT else span(added, 0),
                span([run.rate for run in runs], 0),
                span([run.crowd_p99 for run in runs], 0),
                "" if way is DIRECT else span([run.cpu for run in runs], 0),
            ]
        )
    head = [
        f"short POSTs, {ROUNDS} runs of {SECONDS} s",
        "one client, p50, µs",
        "p99, µs",
        "added to the engine's p50, µs",
        "8 clients, requests/s",
        "p99, µs",
        "nginx's CPU for a request, µs",
    ]
    pairs = {
        way: [one.rate / run.rate for one, run in zip(posts[ROLE], posts[way], strict=True)]
        for way in (NO_GATE, NO_LOG, KEPT, BARE)
    }
    stream_rows = [
        [
            way.words,
            span([quantile(run.first, 0.5) * 1e3 for run in runs]),
            span([quantile(run.first, 0.99) * 1e3 for run in runs]),
            span([quantile(run.under_way, 0.5) * 1e6 for run in runs], 0),
            span([quantile(run.under_way, 0.99) * 1e6 for run in runs], 0),
            "" if way is DIRECT else span([run.cpu * 1e6 for run in runs], 0),
            span(bursts[way], 0),
        ]
        for way, runs in streams.items()
    ]
    stream_head = [
        f"{STREAMS} streams of {EVENTS} events, {1_000_000 // PACE}/s each, {STREAM_ROUNDS} runs",
        "first byte p50, ms",
        "p99, ms",
        "an event under way p50, µs",
        "p99, µs",
        "nginx's CPU for an event, µs",
        "events/s, as fast as it goes",
    ]
    return "\n\n".join(
        [
            written,
            table(head, rows),
            "Requests per second with the role's configuration, over those of the same round:"
            f" without the gate's test {span(pairs[NO_GATE])}, without the log"
            f" {span(pairs[NO_LOG])}, with connections kept {span(pairs[KEPT])}, bare"
            f" {span(pairs[BARE])}.",
            table(stream_head, stream_rows),
            f"Medians of the runs, in brackets the smallest and the largest. {pages.ended()}",
        ]
    )
