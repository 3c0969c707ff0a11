"""One run of clients over one way: wrk's short POSTs, or paced streams, and what it cost in CPU."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.footprint import cpu_seconds, processes
from tests.bench.gating import ways
from tests.bench.gating.ways import Way
from tests.bench.onehost import HERE, REPLICAS, OneHost, OneHostError

__all__ = [
    "BURST",
    "EVENTS",
    "PACE",
    "SECONDS",
    "STREAMS",
    "Streams",
    "first_line",
    "paced",
    "put",
    "wrk",
]

GATING = Path(__file__).parent
SECONDS = 2
"""Of each run of wrk."""
STREAMS, EVENTS, PACE = 100, 200, 50_000
"""Paced streams at once, events of each, microseconds between two: 2000 events/s for 10 s."""
BURST = 256
"""Events of a stream that is sent as fast as it goes."""


@dataclass(frozen=True)
class Streams:
    """One run of paced streams over one way: seconds; *cpu* is the proxies' for each event."""

    first: Sequence[float]
    under_way: Sequence[float]
    cpu: float


def first_line(host: OneHost, command: str) -> str:
    """What *command* says first, without what stands in brackets."""
    line = host.root(f"{command} 2>&1 || true").splitlines()[0]
    return re.sub(r" \[.*", "", line)


def put(host: OneHost, paced_port: int, bursts_port: int) -> None:
    """Bring clients and engines, and put the stand-ins that stream in the engines' places."""
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch, "tokens")
        argv = ["cc", "-O2", "-static", "-pthread", "-o", str(program), str(GATING / "tokens.c")]
        subprocess.run(argv, check=True)
        host.put(f"{HERE}/tokens", program.read_bytes(), "755")
    for name in ("post.lua", "streams.py"):
        host.put(f"{HERE}/{name}", (GATING / name).read_text())
    # its looks would be in the figures, and it would wonder about the engines
    host.root("systemctl stop farrier-agent " + " ".join(f"engine-{one}" for one in REPLICAS))
    ways.start(host, "bench-tokens.service", f"{HERE}/tokens {paced_port} {EVENTS} {PACE}")
    ways.start(host, "bench-bursts.service", f"{HERE}/tokens {bursts_port} {BURST} 0")


def _pids(host: OneHost, units: Sequence[str]) -> list[int]:
    return [pid for unit in units for pid in processes(host.pid_one, unit)]


def wrk(
    host: OneHost, way: Way, engine: int, replica: str, connections: int
) -> tuple[dict[str, Any], float]:
    """One run of wrk; what it says, and the proxies' CPU seconds.

    Raises OneHostError for a failure.
    """
    url = f"http://127.0.0.1:{way.port or engine}{way.prefix.format(replica)}/v1/chat/completions"
    command = (
        f"wrk -t1 -c{connections} -d{SECONDS}s -s {HERE}/post.lua {url} -- {shlex.quote(host.key)}"
    )
    pids = _pids(host, way.units)
    before = cpu_seconds(pids)
    said = json.loads(host.root(command).splitlines()[-1])
    if said["wrong"] or not said["requests"]:
        raise OneHostError(f"{command}: {said}")
    return said, cpu_seconds(pids) - before


def paced(host: OneHost, way: Way, engine: int, replica: str) -> Streams:
    """One run of paced streams. Raises OneHostError unless all are whole."""
    where = f"127.0.0.1:{way.port or engine} {way.prefix.format(replica)}/v1/chat/completions"
    pids = _pids(host, way.units)
    before = cpu_seconds(pids)
    arguments = f"{where} {shlex.quote(host.key)} {STREAMS} {replica}"
    said = json.loads(host.root(f"/usr/bin/python3 {HERE}/streams.py {arguments}"))
    cpu = cpu_seconds(pids) - before
    if said["whole"] != STREAMS or len(said["under_way"]) != STREAMS * EVENTS:
        raise OneHostError(f"{way.words}: {said['whole']} of {STREAMS} streams were whole")
    return Streams(said["first"], said["under_way"], cpu / STREAMS / EVENTS)
