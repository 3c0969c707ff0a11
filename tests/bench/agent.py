"""What the agent costs a host: its memory, its CPU time, its scrapes, beside the node exporter's.

Eight GPUs of a fake NVML, four replicas whose engines tell as much as vLLM does, a scrape every 5 s
by a client that behaves as Prometheus, a gateway that asks every two seconds for each replica, a
short request a second. The node exporter is scraped by the same client in the same moments. Then
the agent alone with 1, 8 and 16 GPUs. Everything is read from outside the host.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tests.bench import pages
from tests.bench.clients import EVERY
from tests.bench.course import ROOT
from tests.bench.footprint import commands, cpu_seconds, memory, processes
from tests.bench.onehost import GPUS, REPLICAS, OneHost, OneHostError, until
from tests.bench.scraping import Scraper
from tests.bench.seen import AGENT, EXPORTER, NVML, PYTHON, Seen, compared, growth

__all__ = ["MINUTES", "agent"]

MINUTES, ALONE, GROWING = 10, 2, 2
"""Counted minutes with clients, before them without any, and then with each number of GPUs."""
SCRAPE = 5.0
TICK = 5.0
"""Seconds between two looks of the agent: its default."""
SETTLED = 25
"""Seconds after a start until every collector has looked a few times and nothing is cold."""
INTERPRETER = "/opt/farrier/agent/current/bin/python"
UNITS: Mapping[str, str] = {
    AGENT: "farrier-agent.service",
    EXPORTER: "prometheus-node-exporter.service",
}
PORTS: Mapping[str, int] = {AGENT: 9810, EXPORTER: 9100}
IDLE: Mapping[str, str] = {
    "bench-agent-imports": (
        "import asyncio, logging, signal; import h11, jeepney, msgspec, prometheus_client;"
        " signal.pause()"
    ),
    "bench-worker-imports": "import ctypes, signal, socket; import msgspec, pynvml; signal.pause()",
    "bench-bare": "import signal; signal.pause()",
}
"""Units that import what the agent's two processes import, or nothing, and do nothing."""
CONFIG = "/etc/farrier/agent.toml"
STATE = "/var/lib/farrier/agent"


def agent(host: OneHost, say: Callable[[str], None], minutes: int = MINUTES) -> None:
    """Measure it, and write its section; only print it when the *minutes* are other ones."""
    written = pages.written("make bench PART=agent", host.versions())
    for unit, program in IDLE.items():
        host.root(
            f"systemd-run -q --collect --unit={unit} {INTERPRETER} -I -c '{program}'", check=True
        )
    try:
        host.gpus(GPUS, held=True)
        # of what is measured nothing is cold
        host.root(f"systemctl restart {' '.join(UNITS.values())}")
        _settle(host)
        alone = _look(host, min(ALONE, minutes), say, scraping=False)
        seen = _asked(host, minutes, say)
        grown = _growth(host, min(GROWING, minutes), say)
        collectors = host.status()["collectors"]
    finally:
        host.root(f"systemctl stop {' '.join(IDLE)}", check=False)
        host.gpus(GPUS)
    if failed := [one for one in collectors if not one["success"]]:
        raise OneHostError(f"collectors that fail: {failed}")
    if not seen[AGENT].scrapes[-1].engines:
        raise OneHostError("nothing of the engines is on the agent's page")
    text = "\n\n".join(
        [
            written,
            f"{GPUS} GPUs, {len(REPLICAS)} replicas; a scrape every {SCRAPE:.0f} s, an agent-check"
            f" question every 2 s for each replica, a short request every {EVERY:.0f} s; a tick of"
            f" {TICK:.0f} s. Collectors, none of which failed:"
            f" {', '.join(one['name'] for one in collectors)}.",
            compared(seen, alone, minutes),
            growth(grown),
            pages.ended(),
        ]
    )
    if minutes == MINUTES:
        pages.rewrite("agent", text)
    else:
        say(f"a try, not written:\n\n{text}\n")


def _settle(host: OneHost) -> None:
    until(lambda: set(host.phases().values()) == {"ready"}, 60, "every replica is ready")
    time.sleep(SETTLED)


def _asked(host: OneHost, minutes: int, say: Callable[[str], None]) -> dict[str, Seen]:
    with _clients(host):
        time.sleep(SCRAPE)  # until they have begun
        return _look(host, minutes, say)


@contextmanager
def _clients(host: OneHost) -> Iterator[None]:
    argv = [sys.executable, "-m", "tests.bench.clients", host.address, host.key]
    with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE) as clients:
        try:
            yield
            ended = clients.poll()
        finally:
            clients.terminate()
        if ended is not None:
            assert clients.stderr is not None
            raise OneHostError(f"the clients ended: {clients.stderr.read().decode()}")


def _subjects(host: OneHost) -> dict[str, list[int]]:
    """The processes of everything that is measured."""
    found = {name: processes(host.pid_one, unit) for name, unit in UNITS.items()}
    workers = [pid for pid in found[AGENT] if "farrier_agent.nvml.program" in commands(pid)]
    found[PYTHON] = [pid for pid in found[AGENT] if pid not in workers]
    found[NVML] = workers
    for unit in IDLE:
        found[unit] = processes(host.pid_one, f"{unit}.service")
    if gone := [name for name, those in found.items() if not those]:
        raise OneHostError(f"not running: {', '.join(gone)}")
    return {name: found[name] for name in (AGENT, PYTHON, NVML, EXPORTER, *IDLE)}


def _look(
    host: OneHost, minutes: int, say: Callable[[str], None], *, scraping: bool = True
) -> dict[str, Seen]:
    """Look at everything for so many minutes, with a scrape in each 5 s or without."""
    pids = _subjects(host)
    # connections that are kept
    scrapers = {name: Scraper(host.address, PORTS[name]) for name in PORTS if scraping}
    seen = {name: Seen() for name in pids}
    # Prometheus scrapes at the same moment of each interval, which may be one in which the agent
    # works, or never is: moments all over the interval are fair
    chance = random.Random(5)  # noqa: S311 - no secret
    due = time.monotonic()
    for _ in range(minutes):
        before = {name: cpu_seconds(those) for name, those in pids.items()}
        for _ in range(round(60 / SCRAPE)):
            for name, those in pids.items():
                seen[name].memory.append(memory(those))
            if scraping:
                moment = due + chance.uniform(0.1, 0.9) * SCRAPE
                time.sleep(max(0.0, moment - time.monotonic()))
                for name, scraper in scrapers.items():
                    seen[name].scrapes.append(scraper.scrape())
            due += SCRAPE
            time.sleep(max(0.0, due - time.monotonic()))
        for name, those in pids.items():
            seen[name].minutes.append(cpu_seconds(those) - before[name])
        one = seen[AGENT]
        say(
            f"a minute {'with' if scraping else 'without'} clients: the agent"
            f" {one.minutes[-1]:.2f} s CPU, {one.memory[-1].share:.1f} MiB; node exporter"
            f" {seen[EXPORTER].minutes[-1]:.2f} s, {seen[EXPORTER].memory[-1].share:.1f} MiB"
        )
    if pids != _subjects(host):
        raise OneHostError("a unit was restarted while it was measured: look at its journal")
    for scraper in scrapers.values():
        scraper.close()
    return seen


def _growth(host: OneHost, minutes: int, say: Callable[[str], None]) -> dict[int, dict[str, Seen]]:
    """The same for each number of GPUs, each time with an agent that remembers no other number."""
    config = host.root(f"cat {CONFIG}")
    found = {}
    try:
        for count in (1, GPUS, 2 * GPUS):
            # every replica on the first GPU: of GPUs that are not there it would be told otherwise
            _begin_anew(host, count, re.sub(r"gpus = \[[^]]*\]", "gpus = [0]", config))
            say(f"{count} GPUs")
            found[count] = _asked(host, minutes, say)
    finally:
        _begin_anew(host, GPUS, config)
    return found


def _begin_anew(host: OneHost, count: int, config: str) -> None:
    host.root(f"systemctl stop {UNITS[AGENT]}; rm -f {STATE}/*.json")
    host.gpus(count, held=True)
    host.put(CONFIG, config)
    host.root(f"systemctl start {UNITS[AGENT]}")
    _settle(host)
    told = len(host.status()["gpus"]["devices"])
    if told != count:
        raise OneHostError(f"the agent tells {told} GPUs, not {count}")
