"""A rolling restart against the sum of its unavoidable parts, without load and with it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from farrier.load import Background, Plan
from tests.bench import pages
from tests.bench.figures import table
from tests.bench.fleet import START, Fleet, FleetError
from tests.bench.onehost import until
from tests.bench.spread import span

__all__ = ["Rolled", "parts", "rollout"]

ROUNDS = 3
SETTLE, LOOKS = 3.0, 2.0
"""Of a drain that finds nothing in flight: the seconds in which it still takes requests, and those
between the first and the third look."""
LOAD = Plan(
    seconds=600,
    streams=2,
    stream_seconds=(1, 3),
    posts=1,
    fresh=1,
    uploads=0,
    seed=6,
    models=("tiny",),
)
NONE, SOME = "no load", f"{LOAD.streams} streams of 1 to 3 s at a time, {LOAD.posts} POSTs, 1 new/s"


@dataclass(frozen=True)
class Rolled:
    """Seconds of one rolling restart: ``wall`` of the command, and the sums over all hosts of what
    their agents measured and of each step by name.
    """

    wall: float
    drain: float
    stop: float
    start: float
    warm: float
    steps: Mapping[str, float] = field(default_factory=dict)

    @property
    def engines(self) -> float:
        """Stop, start and warm of each host's engine."""
        return self.stop + self.start + self.warm


def rollout(fleet: Fleet, say: Callable[[str], None]) -> None:
    """Measure it, and write its section."""
    written = pages.written("make bench PART=rollout", "agents and operator CPython 3.11 and 3.13")
    found: dict[str, list[Rolled]] = {NONE: [], SOME: []}
    for _ in range(ROUNDS):
        found[NONE].append(_roll(fleet))
        say(f"{NONE}: {found[NONE][-1]}")
        with Background(LOAD, fleet.endpoint) as load:
            until(lambda: len(load.ledger.requests) > 10, 60, "the load runs")
            found[SOME].append(_roll(fleet))
            ledger = load.end()
        if ledger.lost:
            raise FleetError(f"{ledger.lost} requests were lost: {ledger.outcomes}")
        say(f"{SOME}: {found[SOME][-1]}")
    pages.rewrite("rollout", _text(written, found, len(fleet.gpus)))


def _roll(fleet: Fleet) -> Rolled:
    began = time.monotonic()
    said = fleet.farrier("rollout", "restart", "-y", "--json", "--model", "tiny")
    wall = time.monotonic() - began
    return parts(json.loads(said.splitlines()[-1]), wall)


def parts(ledger: Any, wall: float) -> Rolled:
    """What the *ledger* of a rolling restart, as JSON, says of its parts. Raises FleetError."""
    replicas = [one for host in ledger["hosts"] for one in host["replicas"]]
    names = ("drain_seconds", "stop_seconds", "start_seconds", "warm_seconds")
    if ledger["outcome"] != "done" or any(one[name] is None for one in replicas for name in names):
        raise FleetError(f"{ledger['id']}: {ledger['outcome']}: {ledger['reason']}: {replicas}")
    steps: dict[str, float] = {}
    for host in ledger["hosts"]:
        for one in host["steps"]:
            took = one["ended_at"] - one["began_at"]
            steps[one["step"]] = steps.get(one["step"], 0.0) + took
    drain, stop, start, warm = (sum(float(one[name]) for one in replicas) for name in names)
    return Rolled(wall, drain, stop, start, warm, steps)


def _text(written: str, found: Mapping[str, Sequence[Rolled]], hosts: int) -> str:
    floor = hosts * (SETTLE + LOOKS)
    rows, shares = [], []
    for name, runs in found.items():
        rows.append(
            [
                name,
                span([one.wall for one in runs], 1),
                span([one.drain for one in runs], 1),
                span([one.stop for one in runs]),
                span([one.start for one in runs], 1),
                span([one.warm for one in runs]),
                span([one.wall / one.engines for one in runs], bold=True),
                span([one.wall / (one.engines + one.drain) for one in runs], bold=True),
                span([one.wall / (one.engines + floor) for one in runs]),
            ]
        )
        steps = {step for one in runs for step in one.steps}
        own = [
            (step, median(one.steps.get(step, 0.0) for one in runs) / hosts)
            for step in ("drain", "act", "check", "ready", "settle")
            if step in steps
        ]
        outside = median(one.wall - sum(one.steps.values()) for one in runs)
        drain = median((one.steps["drain"] - one.drain) / hosts for one in runs)
        act = median((one.steps["act"] - one.engines) / hosts for one in runs)
        said = ", ".join(f"{step} {seconds:.2f}" for step, seconds in own)
        shares.append(
            f"With {name}, the steps of one host in seconds: {said}; of *drain* {drain:.2f} are not"
            f" the agent's drain, of *act* {act:.2f} not stop, start and warm. Outside of the steps"
            f" (inventory, plan, leases, last looks, the program itself): {outside:.2f} in all."
        )
    head = [
        f"{hosts} hosts, one after another",
        "the command, s",
        "drains, s",
        "stops, s",
        "starts, s",
        "warm-ups, s",
        "the command over stop + start + warm",
        "over drain + stop + start + warm",
        f"over {floor:.0f} s of drains + stop + start + warm",
    ]
    return "\n\n".join(
        [
            f"{written} {hosts} hosts whose stand-in engine takes {START:g} s to start.",
            table(head, rows),
            "Sums over the hosts, as their agents measured them; medians of"
            f" {len(next(iter(found.values())))} runs each, in turns, in brackets the smallest and"
            f" the largest. The aim is 1.10. {' '.join(shares)} {pages.ended()}",
        ]
    )
