"""One timed run of a rival: its wall time, its CPU seconds and those of the hosts."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Run", "RunFailedError", "alternated", "hosts_cpu", "timed"]

_TICK = os.sysconf("SC_CLK_TCK")
_UNFAIR = {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
"""An operator has neither, and both rivals compile hundreds of modules anew with the first."""


class RunFailedError(Exception):
    """A run failed or changed something; the message ends with what it printed."""


@dataclass(frozen=True)
class Run:
    """Seconds of one run. *cpu* is the operator's side, *hosts* all processes on all hosts."""

    wall: float
    cpu: float
    hosts: float
    output: str


def timed(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str],
    leaders: Sequence[int],
) -> Run:
    """Run *argv* and measure it. Raises :class:`RunFailedError` unless it exits 0.

    *leaders* are the hosts' PIDs 1, seen from outside. The hosts' seconds include what else they
    did meanwhile (an agent's tick, a scrape).
    """
    hosts_before, own_before = hosts_cpu(leaders), resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if k not in _UNFAIR} | dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    wall = time.perf_counter() - began
    own, hosts = resource.getrusage(resource.RUSAGE_CHILDREN), hosts_cpu(leaders)
    if done.returncode:
        words = " ".join(str(word) for word in argv)
        raise RunFailedError(f"{words}: exit {done.returncode}\n{done.stdout[-4000:]}")
    return Run(
        wall=wall,
        cpu=own.ru_utime + own.ru_stime - own_before.ru_utime - own_before.ru_stime,
        hosts=hosts - hosts_before,
        output=done.stdout,
    )


def hosts_cpu(leaders: Sequence[int]) -> float:
    """CPU seconds so far of every process in the PID namespaces of *leaders*.

    A process that ended counts as its parent's (or PID 1's) ended children.
    """
    namespaces = {_namespace(f"/proc/{leader}/ns/pid") for leader in leaders}
    ticks = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _namespace(f"{entry}/ns/pid") in namespaces:
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            ticks += sum(map(int, fields[11:15]))  # proc(5): utime, stime, cutime, cstime
    return ticks / _TICK


def _namespace(link: str) -> str | None:
    try:
        return os.readlink(link)  # noqa: PTH115 - the link's text, which is no path
    except OSError:  # it ended, or is not ours to look at
        return None


def alternated(
    contestants: Mapping[str, Callable[[], Run]],
    rounds: int,
    say: Callable[[str], None],
    *,
    warm_up: bool = True,
) -> dict[str, list[Run]]:
    """One warm-up of each and then *rounds* rounds A B A B; the counted runs."""
    counted: dict[str, list[Run]] = {name: [] for name in contestants}
    for number in range(0 if warm_up else 1, rounds + 1):
        for name, contestant in contestants.items():
            run = contestant()
            which = f"run {number}" if number else "warm-up"
            say(
                f"{which:8} {name:32} {run.wall:7.2f} s wall, {run.cpu:6.2f} s CPU here,"
                f" {run.hosts:6.2f} s on the hosts"
            )
            if number:
                counted[name].append(run)
    return counted
