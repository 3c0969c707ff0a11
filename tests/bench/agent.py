"""What the agent costs a host: its memory and its CPU time, beside the node exporter's.

Eight GPUs of a fake NVML, four replicas whose engines tell as much as vLLM does, scraped every 15 s
and asked by a gateway every two seconds for each replica. The node exporter is scraped by the same
client in the same moments. Both are read from outside the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from urllib.request import urlopen

from tests.bench import pages
from tests.bench.check import CHECK_PORT, ask_for
from tests.bench.figures import table
from tests.bench.footprint import Memory, cpu_seconds, memory, processes
from tests.bench.onehost import GPUS, HERE, REPLICAS, OneHost, OneHostError
from tests.bench.spread import quantile, span

__all__ = ["agent"]

MINUTES, ALONE = 10, 2
"""Counted minutes with clients, and before them without any."""
SCRAPE = 15.0
TICK = 5.0
"""Seconds between two looks of the agent: its default."""
PYTHON = "/opt/farrier/agent/current/bin/python"

AGENT, EXPORTER, IMPORTS, BARE = (
    "farrier-agent.service",
    "prometheus-node-exporter.service",
    "bench-imports.service",
    "bench-bare.service",
)
WORDS: Mapping[str, str] = {
    AGENT: "**the agent**",
    EXPORTER: "prometheus-node-exporter",
    IMPORTS: "the agent's dependencies, imported and doing nothing",
    BARE: "a Python interpreter that does nothing",
}
_IMPORTS = (
    "import asyncio, logging, signal, ssl; import h11, jeepney, msgspec, prometheus_client, pynvml;"
    " signal.pause()"
)
SCRAPED: Mapping[str, str] = {AGENT: "9810", EXPORTER: "9100"}


@dataclass
class Seen:
    """One unit: its memory at each scrape, CPU seconds of each minute, milliseconds per scrape."""

    memory: list[Memory] = field(default_factory=list)
    minutes: list[float] = field(default_factory=list)
    scrapes: list[float] = field(default_factory=list)
    page: int = 0


def agent(host: OneHost, say: Callable[[str], None]) -> None:
    """Measure it, and write its section."""
    written = pages.written("make bench PART=agent", host.versions())
    for unit, program in ((IMPORTS, _IMPORTS), (BARE, "import signal; signal.pause()")):
        host.root(f"systemd-run -q --collect --unit={unit} {PYTHON} -I -c '{program}'", check=True)
    try:
        # of what is measured nothing is cold
        host.root(f"systemctl restart {AGENT} {EXPORTER}")
        time.sleep(20)
        alone = _minutes(host, ALONE, say, asking=False)
        seen = _minutes(host, MINUTES, say, asking=True)
        least = _least(host)
    finally:
        host.root(f"systemctl stop {IMPORTS} {BARE}", check=False)
    pages.rewrite("agent", _text(written, alone, seen, least))


def _minutes(
    host: OneHost, minutes: int, say: Callable[[str], None], *, asking: bool
) -> dict[str, Seen]:
    """Look at every unit for so many minutes, with its clients or without."""
    pids = {unit: processes(host.pid_one, unit) for unit in WORDS}
    gone = [unit for unit, those in pids.items() if not those]
    if gone:
        raise OneHostError(f"not running: {', '.join(gone)}")
    seen = {unit: Seen() for unit in WORDS}

    async def look() -> None:
        for _ in range(minutes):
            before = {unit: cpu_seconds(those) for unit, those in pids.items()}
            for _ in range(round(60 / SCRAPE)):
                begun = time.monotonic()
                for unit, those in pids.items():
                    seen[unit].memory.append(memory(those))
                if asking:
                    await asyncio.to_thread(_scrape, host, seen)
                await asyncio.sleep(begun + SCRAPE - time.monotonic())
            for unit, those in pids.items():
                seen[unit].minutes.append(cpu_seconds(those) - before[unit])
            say(
                f"a minute {'with' if asking else 'without'} clients: the agent"
                f" {seen[AGENT].minutes[-1]:.2f} s CPU, {seen[AGENT].memory[-1].share:.1f} MiB;"
                f" node exporter {seen[EXPORTER].minutes[-1]:.2f} s,"
                f" {seen[EXPORTER].memory[-1].share:.1f} MiB"
            )

    async def all_of_it() -> None:
        questions = asyncio.create_task(
            ask_for(minutes * 60.0, host.address, {"agent": CHECK_PORT}, gateways=1)
            if asking
            else asyncio.sleep(0)
        )
        await look()
        questions.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await questions

    asyncio.run(all_of_it())
    if any(processes(host.pid_one, unit) != those for unit, those in pids.items()):
        raise OneHostError("a unit was restarted while it was measured: look at its journal")
    return seen


def _least(host: OneHost) -> list[float]:
    """CPU seconds of a minute's questions to the engines, over plain sockets, a few times."""
    host.put(f"{HERE}/questions.py", Path(__file__).with_name("questions.py").read_text())
    ports = " ".join(map(str, REPLICAS.values()))
    command = f"{PYTHON} -I {HERE}/questions.py {round(60 / TICK)} {ports}"
    return [float(host.root(command)) for _ in range(5)]


def _scrape(host: OneHost, seen: Mapping[str, Seen]) -> None:
    for unit, port in SCRAPED.items():
        begun = time.perf_counter()
        with urlopen(f"http://{host.address}:{port}/metrics", timeout=10) as answer:
            seen[unit].page = len(answer.read())
        seen[unit].scrapes.append((time.perf_counter() - begun) * 1e3)


def _text(
    written: str,
    alone: Mapping[str, Seen],
    seen: Mapping[str, Seen],
    least: list[float],
) -> str:
    head = [
        "",
        "USS, MiB",
        "PSS, MiB",
        "RSS, MiB",
        f"CPU s in {MINUTES} minutes",
        "CPU s a minute",
        "without clients",
        "a scrape, ms",
    ]
    rows = []
    for unit, words in WORDS.items():
        one = seen[unit]
        scraped = unit in SCRAPED
        rows.append(
            [
                words,
                span([look.unique for look in one.memory], 1),
                span([look.share for look in one.memory], 1, bold=unit == AGENT),
                span([look.resident for look in one.memory], 1),
                f"**{sum(one.minutes):.1f}**" if scraped else f"{sum(one.minutes):.1f}",
                span(one.minutes) if scraped else "",
                span(alone[unit].minutes) if scraped else "",
                f"{quantile(one.scrapes, 0.5):.1f}, p99 {quantile(one.scrapes, 0.99):.1f}"
                f" ({one.page / 1024:.0f} KiB)"
                if scraped
                else "",
            ]
        )
    mine, rival, floor = (seen[unit] for unit in (AGENT, EXPORTER, IMPORTS))
    first, last = mine.memory[0], mine.memory[-1]
    share = sum(mine.minutes) / (60 * MINUTES)
    return "\n\n".join(
        [
            written,
            f"{GPUS} GPUs, {len(REPLICAS)} replicas without requests; a scrape every"
            f" {SCRAPE:.0f} s, an agent-check question every 2 s for each replica.",
            table(head, rows),
            f"Medians of the {len(mine.memory)} looks or {MINUTES} minutes, in brackets the"
            f" smallest and the largest. The agent takes {share:.2%} of one core,"
            f" {sum(mine.minutes) / sum(rival.minutes):.1f} times the node exporter's CPU time and"
            f" {_of(mine) / _of(rival):.2f} times its PSS; its own code and data are"
            f" {_of(mine) - _of(floor):.1f} MiB on top of its dependencies. From the first look to"
            f" the last its USS went from {first.unique:.2f} to {last.unique:.2f} MiB.",
            f"The questions alone that it asks the engines in a minute"
            f" ({round(60 / TICK) * 3 * len(REPLICAS)}), over plain sockets and with the answers"
            f" thrown away, take {span(least)} s of CPU time on the asking side."
            f" {pages.ended()}",
        ]
    )


def _of(one: Seen) -> float:
    return median(look.share for look in one.memory)
