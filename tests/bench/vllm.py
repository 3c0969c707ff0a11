"""The real vLLM's throughput through gateway and nginx, against the same engine asked directly.

One box as in the part ``gateway``, with vLLM on its CPU and the tiny model with random weights.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from farrier.lab import Lab
from tests.bench import pages
from tests.bench.course import LAB
from tests.bench.figures import table
from tests.bench.footprint import cpu_seconds, processes
from tests.bench.gateway import GATEWAY, KEY
from tests.bench.gating.measuring import GATING, first_line
from tests.bench.gating.ways import DIRECT, Way
from tests.bench.onehost import HERE, HOST, OneHost, OneHostError, until
from tests.bench.spread import quantile, span
from tests.roles.converging import Converge

__all__ = ["vllm"]

ROUNDS = 9
CLIENTS, REQUESTS, TOKENS = 8, 3, 128
PORT = 8101
WAYS = (DIRECT, GATEWAY)


@dataclass(frozen=True)
class Asked:
    """One run over one way: tokens a second, seconds to the first events, the proxies' CPU
    seconds for each token.
    """

    rate: float
    first: Sequence[float]
    cpu: float


def vllm(say: Callable[[str], None]) -> None:
    """Measure it, and write its section."""
    lab = Lab.open(LAB, report=say)
    try:
        lab.up([HOST])
        host = OneHost(lab)
        host.key = KEY
        _prepare(host, say)
        engine = host.root("ls -d /opt/farrier/vllm/*-*/ | tail -n 1 | xargs basename").strip()
        version = engine.rpartition("-")[0]
        written = pages.written(
            "make bench PART=vllm",
            f"{host.versions()}, {first_line(host, 'haproxy -v')}, vLLM {version} on the CPU",
        )
        runs: dict[Way, list[Asked]] = {way: [] for way in WAYS}
        for number in range(ROUNDS + 1):  # the first one warms up
            # each is the first of its round as often as the other
            for way in WAYS if number % 2 else reversed(WAYS):
                run = _asked(host, way)
                if number:
                    runs[way].append(run)
                say(f"vllm {number or 'warm-up'}: {run.rate:.0f} tokens/s: {way.words}")
        pages.rewrite("vllm", _text(written, runs))
    finally:
        if os.environ.get("FARRIER_KEEP_LAB") != "1":
            lab.down()


def _prepare(host: OneHost, say: Callable[[str], None]) -> None:
    host.root("systemctl stop 'bench-*'", check=False)
    with tempfile.TemporaryDirectory(prefix="farrier-bench-") as scratch:
        keys = Path(scratch, "keys.toml")
        limits = "requests_per_minute = 1000000\nstreams = 60000"
        keys.write_text(f'[keys.bench]\nkey = "{KEY}"\n{limits}\n')
        keys.chmod(0o600)
        it = Converge(host.lab, Path(scratch))
        it.data[HOST] = {"nginx_clients": "keys", "api_keys_file": str(keys)}
        # what the lab's hosts serve by themselves is the tiny model, by vLLM
        run = it(limit=[HOST], timeout=1200, environment={"FARRIER_LAB_GATEWAYS": HOST})
        if run.returncode:
            raise OneHostError(f"the converge failed:\n{run.last_words(60)}")
        say(f"converged in {run.seconds:.0f} s")
    until(lambda: host.phases().get("tiny") == "ready", 300, "vLLM is ready")
    host.put(f"{HERE}/loop.py", (GATING / "loop.py").read_text())


def _asked(host: OneHost, way: Way) -> Asked:
    words = [f"127.0.0.1:{way.port or PORT}", "/v1/chat/completions", host.key]
    words += [str(CLIENTS), str(REQUESTS), str(TOKENS), "tiny"]
    pids = [pid for unit in way.units for pid in processes(host.pid_one, unit)]
    before = cpu_seconds(pids)
    said = json.loads(host.root(f"/usr/bin/python3 {HERE}/loop.py {shlex.join(words)}"))
    cpu = cpu_seconds(pids) - before
    if said["whole"] != CLIENTS * REQUESTS or said["tokens"] != CLIENTS * REQUESTS * TOKENS:
        raise OneHostError(f"{way.words}: {said['whole']} streams, {said['tokens']} tokens")
    return Asked(said["tokens"] / said["seconds"], said["first"], cpu / said["tokens"])


def _text(written: str, runs: Mapping[Way, Sequence[Asked]]) -> str:
    base = runs[DIRECT]
    rows = []
    for way, ours in runs.items():
        pairs = [one.rate / other.rate for one, other in zip(ours, base, strict=True)]
        rows.append(
            [
                way.words,
                span([one.rate for one in ours], 0),
                "1" if way is DIRECT else span(pairs, bold=True),
                span([quantile(one.first, 0.5) * 1e3 for one in ours], 0),
                span([quantile(one.first, 0.99) * 1e3 for one in ours], 0),
                "" if way is DIRECT else span([one.cpu * 1e6 for one in ours], 0),
            ]
        )
    head = [
        f"{CLIENTS} clients, {REQUESTS} streams of {TOKENS} tokens each, {ROUNDS} runs",
        "tokens/s",
        "of the engine's own",
        "first event p50, ms",
        "p99, ms",
        "proxies' CPU for a token, µs",
    ]
    share = median(one.rate / other.rate for one, other in zip(runs[GATEWAY], base, strict=True))
    return "\n\n".join(
        [
            written,
            table(head, rows),
            f"Aim: at least 0.95 of the engine's own throughput; here {share:.2f}. Medians of the"
            " runs, in brackets the smallest and the largest; the ratio is of the same round."
            f" {pages.ended()}",
        ]
    )
