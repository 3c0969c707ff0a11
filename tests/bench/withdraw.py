"""From a drain's start to the last new request that reaches the host, behind a gateway."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from farrier.load import Background, Plan
from tests.bench import pages
from tests.bench.figures import table
from tests.bench.fleet import Fleet, FleetError
from tests.bench.onehost import until
from tests.bench.spread import span

__all__ = ["withdraw"]

ROUNDS = 4
"""Of each host."""
PER_SECOND = 200
AFTER = 4.0
"""Seconds of load after the drain is over: a request that came then would be in the log."""
LOG = "/var/log/nginx/farrier-access.log"


@dataclass(frozen=True)
class Withdrawn:
    """One drain, in seconds: from the command's start to the drain's, and from there to the last
    new request that the gateway sent to the host, and to the drain's end. ``refused``: how many
    requests came to a closed gate, and went elsewhere.
    """

    command: float
    last: float
    refused: int
    over: float


def withdraw(fleet: Fleet, say: Callable[[str], None]) -> None:
    """Measure it, and write its section."""
    written = pages.written("make bench PART=withdraw", _gateway(fleet))
    found: list[Withdrawn] = []
    plan = Plan(
        seconds=1200,
        streams=0,
        posts=0,
        uploads=0,
        fresh=PER_SECOND,
        post_tokens=1,
        models=("tiny",),
        seed=5,
    )
    with Background(plan, fleet.endpoint) as load:
        until(lambda: len(load.ledger.requests) > PER_SECOND, 60, "the load runs")
        began = time.monotonic()
        first = len(load.ledger.requests)
        for _ in range(ROUNDS):
            for host in fleet.gpus:
                found.append(_once(fleet, host))
                say(f"{host}: {found[-1]}")
        rate = (len(load.ledger.requests) - first) / (time.monotonic() - began)
        ledger = load.end()
    if ledger.lost:
        raise FleetError(f"{ledger.lost} requests were lost: {ledger.outcomes}")
    pages.rewrite(
        "withdraw", _text(written, found, rate, len(ledger.requests), ledger.outcomes["refused"])
    )


def _gateway(fleet: Fleet) -> str:
    said = fleet.root("gw01", "haproxy -v").splitlines()[0]
    return said.partition(" - ")[0]


def _once(fleet: Fleet, host: str) -> Withdrawn:
    asked = time.time()
    refused = _refusals(fleet, host)
    fleet.farrier("drain", f"{host}/tiny", "--reason", "bench")
    time.sleep(AFTER)  # nothing can be awaited: what is shown is that nothing comes any more
    drained = json.loads(fleet.root(host, "cat /var/lib/farrier/replicas/tiny.json"))["drain"]
    began = drained["begun"] + time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    log = fleet.root(
        "gw01",
        f'journalctl -u haproxy -o cat --since @{asked:.0f} | grep -F \'"replica":"{host}:tiny"\'',
    )
    taken = [float(json.loads(line)["time"]) for line in log.splitlines()]
    refused = _refusals(fleet, host) - refused
    fleet.farrier("ready", f"{host}/tiny")
    return Withdrawn(
        command=began - asked,
        last=max(taken) - began,
        refused=refused,
        over=drained["ended"] - drained["begun"],
    )


def _refusals(fleet: Fleet, host: str) -> int:
    """How many requests the host's gate has refused since ever."""
    return int(fleet.root(host, f"grep -c '\"status\":425' {LOG} || true"))


def _text(
    written: str, found: Sequence[Withdrawn], rate: float, requests: int, refused: int
) -> str:
    head = [
        f"{len(found)} drains",
        "the command's start to the drain's, s",
        "the drain's start to the last new request, s",
        "to its end, s",
        "requests that the gate refused",
    ]
    row = [
        f"three hosts behind one gateway, {rate:.0f} new requests/s",
        span([one.command for one in found]),
        span([one.last for one in found], bold=True),
        span([one.over for one in found]),
        f"{sum(one.refused for one in found)}",
    ]
    return "\n\n".join(
        [
            written,
            table(head, [row]),
            f"Medians, in brackets the smallest and the largest. Of {requests:,} requests none was"
            f" lost, {refused} were refused. {pages.ended()}",
        ]
    )
