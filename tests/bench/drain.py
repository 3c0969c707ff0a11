"""How long after the last request's end a drain is over, and systemd may end the engine.

A drain waits for three looks, one second apart, that see nothing in flight: two seconds at least.
What is above that is Farrier's. The streams come from the operator's machine through the host's
nginx and end at times that are spread, so no look is at the same distance from an end as the last.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import cycle
from statistics import median
from typing import Any

from tests.bench import pages
from tests.bench.figures import table
from tests.bench.onehost import REPLICAS, OneHost, OneHostError, until
from tests.bench.spread import span

__all__ = ["drain", "stream"]

FLOOR = 2.0
"""Seconds between the first and the third look."""
STREAMS = (1, 2, 3, 5, 8, 13, 21, 30)
TOKEN = 0.02
"""Seconds per token of the stand-in engine."""
SHORTEST, LONGEST = 5.5, 7.5
"""Seconds of a stream: they outlast any settling, so what is measured is the counting."""

BY_AGENT, BY_STOP, ALONE = (
    "`farrier-agent drain`",
    "`systemctl stop`, the agent drains",
    "`systemctl stop` without an agent",
)


@dataclass(frozen=True)
class One:
    """One drain: seconds from the end of the last stream to each moment, None where there is none.

    ``drained`` is in the record, ``returned`` is when the first program of ``ExecStop=`` returned,
    ``let_go`` when the last one did and systemd ends the engine.
    """

    streams: int
    drained: float
    returned: float | None = None
    let_go: float | None = None


def drain(host: OneHost, say: Callable[[str], None]) -> None:
    """Measure it, and write its section."""
    written = pages.written("make bench PART=drain", host.versions())
    chance = random.Random(20)  # noqa: S311 - spreads the ends, the same ones in every run
    replicas = cycle(REPLICAS)
    found: dict[str, list[One]] = {}
    for kind, one in ((BY_AGENT, _by_agent), (BY_STOP, _by_stop), (ALONE, _alone)):
        found[kind] = []
        for streams in STREAMS:
            found[kind].append(one(host, next(replicas), streams, chance))
            say(f"{kind}: {found[kind][-1]}")
    pages.rewrite("drain", _text(written, found))


# -- one drain -----------------------------------------------------------------------------------


def _by_agent(host: OneHost, replica: str, streams: int, chance: random.Random) -> One:
    with ThreadPoolExecutor(streams) as pool:
        ends = _begin(host, pool, replica, streams, chance)
        host.root(f"farrier-agent drain {replica} --wait")
        last = max(end.result() for end in ends)
    ended = host.record(replica)["drain"]["ended"]
    host.root(f"farrier-agent ready {replica} --wait")
    _ready(host, replica)
    return One(streams, ended - last)


def _by_stop(host: OneHost, replica: str, streams: int, chance: random.Random) -> One:
    with ThreadPoolExecutor(streams) as pool:
        ends = _begin(host, pool, replica, streams, chance)
        host.root(f"systemctl stop engine-{replica}")
        last = max(end.result() for end in ends)
    ended = host.record(replica)["last_drain"]["ended"]
    returned = _returned(host, replica)
    host.root(f"systemctl reset-failed engine-{replica}; systemctl start engine-{replica}")
    _ready(host, replica)
    return One(streams, ended - last, returned[0] - last, returned[-1] - last)


def _alone(host: OneHost, replica: str, streams: int, chance: random.Random) -> One:
    host.root("systemctl stop farrier-agent")
    try:
        with ThreadPoolExecutor(streams) as pool:
            ends = _begin(host, pool, replica, streams, chance)
            host.root(f"systemctl stop engine-{replica}")
            last = max(end.result() for end in ends)
        record = host.record(replica)
        ended = (record["drain"] or record["last_drain"])["ended"]
        returned = _returned(host, replica)
    finally:
        host.root("systemctl start farrier-agent")
    host.root(f"systemctl reset-failed engine-{replica}; systemctl start engine-{replica}")
    _ready(host, replica)
    return One(streams, ended - last, returned[0] - last, returned[-1] - last)


def _begin(
    host: OneHost, pool: ThreadPoolExecutor, replica: str, streams: int, chance: random.Random
) -> list[Any]:
    """Start them; when each of them is answered. Their results are when they ended."""
    lengths = [chance.uniform(SHORTEST, LONGEST) for _ in range(streams)]
    ends = [pool.submit(stream, host, replica, round(length / TOKEN)) for length in lengths]
    until(
        lambda: _in_flight(host, replica) >= streams or any(end.done() for end in ends),
        5,
        f"{streams} streams run",
    )
    return ends


def stream(host: OneHost, replica: str, tokens: int) -> float:
    """One stream, read to its end; the second of CLOCK_BOOTTIME at which it ended."""
    connection = http.client.HTTPConnection(host.address, 8080, timeout=60)
    body = {"model": replica, "stream": True, "max_tokens": tokens, "messages": []}
    headers = {"Authorization": f"Bearer {host.key}", "Content-Type": "application/json"}
    path = f"/replicas/{replica}/v1/chat/completions"
    connection.request("POST", path, json.dumps(body).encode(), headers)
    answer = connection.getresponse()
    data = answer.read()
    end = time.clock_gettime(time.CLOCK_BOOTTIME)
    connection.close()
    if answer.status != 200 or not data.endswith(b"data: [DONE]\n\n"):
        raise OneHostError(f"a stream of {replica} was cut: {answer.status} {data[-200:]!r}")
    return end


def _in_flight(host: OneHost, replica: str) -> int:
    """What the engine executes just now."""
    page = host.root(f"curl -s 127.0.0.1:{REPLICAS[replica]}/metrics")
    found = re.search(r"^vllm:num_requests_running\S* (\d+)", page, re.MULTILINE)
    return int(found[1]) if found else 0


def _returned(host: OneHost, replica: str) -> list[float]:
    """When the programs of ``ExecStop=`` returned, in seconds of CLOCK_BOOTTIME."""
    said = host.root(f"systemctl show --timestamp=us+utc -P ExecStop engine-{replica}")
    since = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    times = re.findall(r"stop_time=\[\w+ ([-0-9]+ [:.0-9]+) UTC\]", said)
    if not times:
        raise OneHostError(f"systemd does not say when ExecStop= returned: {said}")
    return [datetime.fromisoformat(f"{one}+00:00").timestamp() - since for one in times]


def _ready(host: OneHost, replica: str) -> None:
    until(lambda: host.phases().get(replica) == "ready", 60, f"{replica} is ready again")


# -- the section ---------------------------------------------------------------------------------


def _text(written: str, found: dict[str, list[One]]) -> str:
    rows = []
    for kind, ones in found.items():
        above = [one.drained - FLOOR for one in ones]
        rows.append(
            [
                kind,
                str(len(ones)),
                f"**{median([one.drained for one in ones]):.2f}**"
                f" ({min(one.drained for one in ones):.2f} to"
                f" {max(one.drained for one in ones):.2f})",
                span(above),
                _span([one.returned for one in ones]),
                _span([one.let_go for one in ones]),
            ]
        )
    head = [
        f"drains with {STREAMS[0]} to {STREAMS[-1]} streams",
        "drains",
        "last stream's end to *drained*, s",
        f"above the {FLOOR:.0f} s of three looks",
        "to the return of `ExecStop=`, s",
        "to the engine's SIGTERM, s",
    ]
    return "\n\n".join(
        [
            written,
            table(head, rows),
            "Medians, in brackets the fastest and the slowest. Every stream ended in `[DONE]`."
            f" {pages.ended()}",
        ]
    )


def _span(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return span(known) if known else ""
