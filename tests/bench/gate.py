"""What the host's nginx costs a request: as the role configures it, and with parts left out.

Everything runs on the host: the engine's stand-ins, every nginx and the clients, over loopback. The
nginx with the role's configuration is the host's own; those that are compared with it are further
instances of it, whose configuration is the host's with one thing taken out.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import pages
from tests.bench.figures import table
from tests.bench.footprint import cpu_seconds, processes
from tests.bench.gating import ways
from tests.bench.gating.ways import BARE, DIRECT, KEPT, NO_GATE, NO_LOG, ROLE, Way
from tests.bench.onehost import HERE, REPLICAS, OneHost, OneHostError
from tests.bench.spread import quantile, span

__all__ = ["gate"]

GATING = Path(__file__).with_name("gating")
ROUNDS, STREAM_ROUNDS = 9, 4
SECONDS = 2
"""Of each run of wrk."""
STREAMS, EVENTS, PACE = 100, 200, 50_000
"""Paced streams at once, events of each, microseconds between two: 2000 events/s for 10 s."""
BURST = 256
"""Events of a stream that is sent as fast as it goes."""

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


@dataclass(frozen=True)
class Streams:
    """One run of paced streams over one way: seconds; *cpu* is nginx's for each event."""

    first: Sequence[float]
    under_way: Sequence[float]
    cpu: float


def gate(host: OneHost, say: Callable[[str], None]) -> None:
    """Measure it, and write its section."""
    host.root("apt-get -qq update && apt-get -qqy install --no-install-recommends wrk")
    written = pages.written(
        "make bench PART=gate", f"{host.versions()}, {_first_line(host, 'wrk -v')}"
    )
    try:
        _prepare(host)
        posts = _posts(host, say)
        streams, bursts = _streams(host, say)
    finally:
        _restore(host)
    pages.rewrite("gate", _text(written, posts, streams, bursts))


def _first_line(host: OneHost, command: str) -> str:
    line = host.root(f"{command} 2>&1 || true").splitlines()[0]
    return re.sub(r" \[.*", "", line)


# -- what runs on the host -----------------------------------------------------------------------


def _prepare(host: OneHost) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch, "tokens")
        argv = ["cc", "-O2", "-static", "-pthread", "-o", str(program), str(GATING / "tokens.c")]
        subprocess.run(argv, check=True)
        host.put(f"{HERE}/tokens", program.read_bytes(), "755")
    for name in ("post.lua", "streams.py"):
        host.put(f"{HERE}/{name}", (GATING / name).read_text())
    # its looks would be in the figures, and it would wonder about the engines
    host.root("systemctl stop farrier-agent " + " ".join(f"engine-{one}" for one in REPLICAS))
    ways.start(host, "bench-tokens.service", f"{HERE}/tokens {PACED} {EVENTS} {PACE}")
    ways.start(host, "bench-bursts.service", f"{HERE}/tokens {BURSTS} {BURST} 0")
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
            alone, _ = _wrk(host, way, POSTS, "m1", 1)
            crowd, cpu = _wrk(host, way, POSTS, "m1", 8)
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


def _wrk(
    host: OneHost, way: Way, engine: int, replica: str, connections: int
) -> tuple[dict[str, Any], float]:
    """One run of wrk; what it says, and nginx's CPU seconds. Raises OneHostError for a failure."""
    url = f"http://127.0.0.1:{way.port or engine}{way.prefix.format(replica)}/v1/chat/completions"
    command = (
        f"wrk -t1 -c{connections} -d{SECONDS}s -s {HERE}/post.lua {url} -- {shlex.quote(host.key)}"
    )
    pids = processes(host.pid_one, way.unit) if way.unit else []
    before = cpu_seconds(pids)
    said = json.loads(host.root(command).splitlines()[-1])
    if said["wrong"] or not said["requests"]:
        raise OneHostError(f"{command}: {said}")
    return said, cpu_seconds(pids) - before


# -- streams -------------------------------------------------------------------------------------


def _streams(
    host: OneHost, say: Callable[[str], None]
) -> tuple[dict[Way, list[Streams]], dict[Way, list[float]]]:
    runs: dict[Way, list[Streams]] = {way: [] for way in (DIRECT, BARE, NO_GATE, ROLE)}
    bursts: dict[Way, list[float]] = {way: [] for way in runs}
    for _ in range(STREAM_ROUNDS):
        for way, done in runs.items():
            done.append(run := _paced(host, way))
            said, _ = _wrk(host, way, BURSTS, "m3", 8)
            bursts[way].append(said["requests"] / said["seconds"] * BURST)
            say(
                f"streams: first byte {median(run.first) * 1e3:.2f} ms, under way"
                f" {median(run.under_way) * 1e6:.0f} µs, nginx {run.cpu * 1e6:.1f} µs each,"
                f" {bursts[way][-1]:,.0f} events/s at most: {way.words}"
            )
    return runs, bursts


def _paced(host: OneHost, way: Way) -> Streams:
    where = f"127.0.0.1:{way.port or PACED} {way.prefix.format('m2')}/v1/chat/completions"
    pids = processes(host.pid_one, way.unit) if way.unit else []
    before = cpu_seconds(pids)
    said = json.loads(
        host.root(f"/usr/bin/python3 {HERE}/streams.py {where} {shlex.quote(host.key)} {STREAMS}")
    )
    cpu = cpu_seconds(pids) - before
    if said["whole"] != STREAMS or len(said["under_way"]) != STREAMS * EVENTS:
        raise OneHostError(f"{way.words}: {said['whole']} of {STREAMS} streams were whole")
    return Streams(said["first"], said["under_way"], cpu / STREAMS / EVENTS)


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
