"""How fast the agent answers gateways that ask whether a replica takes requests (agent-check).

Four gateways ask for four replicas every two seconds each, as HAProxy does, from the operator's
machine. In the same seconds and in the same way they ask a bare asyncio server on the host that
says the same words to everybody: no Python program can be faster, so that is the limit.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench import pages
from tests.bench.drain import stream
from tests.bench.figures import table
from tests.bench.onehost import HERE, REPLICAS, OneHost, OneHostError, until
from tests.bench.spread import quantile, span

__all__ = ["ask_for", "check"]

CHECK_PORT, ECHO_PORT, HTTP_PORT = 9811, 9899, 9810
GATEWAYS, EVERY = 4, 2.0
ROUNDS, SECONDS = 3, 40.0
SILENT = 200
DRAINS = "m4"
"""The replica that is drained meanwhile, with a stream that outlasts the round."""

AGENT, ECHO = "the agent", "a bare asyncio server"
IDLE = "idle"
BUSY = f"`/metrics` scraped without a pause, {SILENT} silent connections, a drain under way"


def check(host: OneHost, say: Callable[[str], None]) -> None:
    """Measure it, and write its section."""
    written = pages.written("make bench PART=check", host.versions())
    host.put(f"{HERE}/echo.py", Path(__file__).with_name("echo.py").read_text())
    python = "/opt/farrier/agent/current/bin/python"
    host.root(f"systemd-run -q --collect --unit=bench-echo {python} -I {HERE}/echo.py {ECHO_PORT}")
    until(lambda: _listens(host, ECHO_PORT), 10, "the bare server listens")
    ports = {AGENT: CHECK_PORT, ECHO: ECHO_PORT}
    found: dict[str, dict[str, list[list[float]]]] = {
        state: {name: [] for name in ports} for state in (IDLE, BUSY)
    }
    scraped: list[float] = []
    try:
        for _ in range(ROUNDS):
            for state, around in ((IDLE, _idle), (BUSY, _busy)):
                with around(host) as report:
                    times = asyncio.run(ask_for(SECONDS, host.address, ports))
                if state is BUSY:
                    scraped.append(report())
                for name, seconds in times.items():
                    found[state][name].append(seconds)
                    say(
                        f"{name}, {state.partition(',')[0]}: {len(seconds)} questions, p50"
                        f" {quantile(seconds, 0.5) * 1e3:.2f} ms, p99"
                        f" {quantile(seconds, 0.99) * 1e3:.2f} ms"
                    )
    finally:
        host.root("systemctl stop bench-echo; farrier-agent ready --all", check=False)
    pages.rewrite("check", _text(written, found, scraped))


def _listens(host: OneHost, port: int) -> bool:
    with suppress(ConnectionError), socket.create_connection((host.address, port), timeout=5):
        return True
    return False


# -- the gateways --------------------------------------------------------------------------------


async def ask_for(
    seconds: float, address: str, ports: Mapping[str, int], gateways: int = GATEWAYS
) -> dict[str, list[float]]:
    """Ask at each of *ports* for *seconds*; how long each question took, by the ports' names."""
    times: dict[str, list[float]] = {name: [] for name in ports}
    askers = [(name, replica) for _ in range(gateways) for replica in REPLICAS for name in ports]
    loop = asyncio.get_running_loop()
    began = loop.time() + 0.1

    async def ask(number: int, name: str, replica: str) -> None:
        # HAProxy spreads its questions over the interval
        due = began + EVERY * number / len(askers)
        while due < began + seconds:
            await asyncio.sleep(due - loop.time())
            times[name].append(await question(address, ports[name], replica))
            due += EVERY

    await asyncio.gather(*(ask(number, *asker) for number, asker in enumerate(askers)))
    return times


async def question(address: str, port: int, replica: str) -> float:
    """Ask once; seconds until the connection's end. Raises OneHostError for no answer."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(f"{replica}\n".encode())
    answer = await reader.read()
    seconds = time.perf_counter() - began
    writer.close()
    if answer not in {b"up ready 100%\n", b"up drain\n"}:
        raise OneHostError(f"{address}:{port} answers {answer!r}")
    return seconds


# -- what goes on meanwhile ----------------------------------------------------------------------

Report = Callable[[], float]


@contextmanager
def _idle(_host: OneHost) -> Iterator[Report]:
    yield lambda: 0.0


@contextmanager
def _busy(host: OneHost) -> Iterator[Report]:
    """In a process of its own, so that it is not the gateways' program that is slow."""
    argv = [sys.executable, "-m", "tests.bench.crowd", host.address, str(HTTP_PORT)]
    argv += [str(CHECK_PORT), str(SILENT), str(SECONDS)]
    with ThreadPoolExecutor(1) as pool, subprocess.Popen(argv, stdout=subprocess.PIPE) as crowd:
        streams = pool.submit(stream, host, DRAINS, round((SECONDS + 5) / 0.02))
        host.root(f"farrier-agent drain {DRAINS}")
        said: list[float] = []
        try:
            yield lambda: said[0]
        finally:
            out, _ = crowd.communicate()
            said.append(float(out))
            streams.result()
            host.root(f"farrier-agent ready {DRAINS} --wait")


# -- the section ---------------------------------------------------------------------------------


def _text(
    written: str,
    found: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    scraped: Sequence[float],
) -> str:
    head = ["", "answers", "p50, ms", "p99, ms", "slowest, ms"]
    rows = []
    ratios = []
    for state, servers in found.items():
        for name, rounds in servers.items():
            rows.append(
                [
                    f"{name}, {state}",
                    str(sum(map(len, rounds))),
                    span([quantile(one, 0.5) * 1e3 for one in rounds], bold=name == AGENT),
                    span([quantile(one, 0.99) * 1e3 for one in rounds], bold=name == AGENT),
                    f"{max(map(max, rounds)) * 1e3:.1f}",
                ]
            )
        pairs = [
            quantile(one, 0.5) / quantile(limit, 0.5)
            for one, limit in zip(servers[AGENT], servers[ECHO], strict=True)
        ]
        ratios.append(f"{span(pairs)} ({'idle' if state == IDLE else 'busy'})")
    return "\n\n".join(
        [
            written,
            table(head, rows),
            f"p50 and p99 of each of {ROUNDS} rounds of {SECONDS:.0f} s: the median of the rounds,"
            " in brackets the smallest and the largest. The agent's p50 over the bare server's of"
            f" the same round: {', '.join(ratios)}. While it was busy it also answered"
            f" {span(scraped, 0)} scrapes a second."
            f" {pages.ended()}",
        ]
    )
