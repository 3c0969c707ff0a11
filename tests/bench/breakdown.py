"""Where a no-change converge spends its time, and what it could not do without."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from farrier.lab import Lab
from tests.bench.course import ROOT
from tests.bench.farrier_side import Converge
from tests.bench.figures import table
from tests.bench.runs import Run, timed

__all__ = ["breakdown"]

REPEATS = 7
WHOLE = "**together**"
LEAST = "`pyinfra -y --sudo inventory exec -- true`"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Cost:
    """Medians in milliseconds."""

    wall: float
    cpu: float


class Costs:
    """Seconds of many things, measured again and again."""

    def __init__(self) -> None:
        self._walls: dict[str, list[float]] = {}
        self._cpus: dict[str, list[float]] = {}

    def add(self, name: str, wall: float, cpu: float) -> None:
        """One measurement of *name*."""
        self._walls.setdefault(name, []).append(wall)
        self._cpus.setdefault(name, []).append(cpu)

    def __getitem__(self, name: str) -> Cost:
        return Cost(median(self._walls[name]) * 1000, median(self._cpus[name]) * 1000)

    def rows(self) -> list[list[str]]:
        """For a table, in the order in which they came."""
        return [[name, f"{self[name].wall:.0f}", f"{self[name].cpu:.0f}"] for name in self._walls]


def breakdown(lab: Lab, farrier: Converge, say: Say) -> str:
    """The section of the page: phases of the converge, and what lies beneath them."""
    say(f"breaking down {REPEATS} converges, with what lies beneath them in between")
    phases, beneath = Costs(), Costs()
    with tempfile.TemporaryDirectory(prefix="farrier-bench-") as scratch:
        steps = _steps(lab, scratch)
        commands = _converge(farrier, Costs())  # a warm-up
        for command in steps.values():
            _shell(command, farrier)
        for _ in range(REPEATS):
            commands = _converge(farrier, phases)
            for name, command in steps.items():
                run = _shell(command, farrier)
                beneath.add(name, run.wall, run.cpu)
        for host in lab.hosts:
            close = [*_ssh(lab, scratch).split(), "-O", "exit", host.name]
            subprocess.run(close, capture_output=True, check=False)
    whole, least = phases[WHOLE], beneath[LEAST]
    text = [
        f"`python -m tests.bench --breakdown` (part of `make bench`), medians of {REPEATS} runs of"
        " each, taken in turns. *CPU here* is that of the operator's side; the rest of the wall"
        " time is the hosts' work and waiting for a core.",
        table(["phase of a converge", "wall, ms", "CPU here, ms"], phases.rows()),
        "Commands per host: "
        + ", ".join(f"{host} {count}" for host, count in sorted(commands.items()))
        + ".",
        table(["beneath it", "wall, ms", "CPU here, ms"], beneath.rows()),
        f"{LEAST} starts pyinfra, reads the inventory, logs in to every host and runs one command"
        f" that does nothing: {least.wall:.0f} ms. That is the floor of everything that is built"
        f" on pyinfra; a converge takes {whole.wall / least.wall:.2f} times as long.",
    ]
    return "\n\n".join(text)


def _converge(farrier: Converge, costs: Costs) -> dict[str, int]:
    """Add one converge's phases to *costs*; the number of commands by host."""
    with tempfile.NamedTemporaryFile() as file:
        env = dict(farrier.env) | {"FARRIER_BENCH_BEGAN": str(time.monotonic())}
        argv = [sys.executable, "-m", "tests.bench.trace", file.name]
        run = timed(argv, cwd=ROOT, env=env, leaders=farrier.leaders)
        trace = json.loads(Path(file.name).read_text())
    before, cpu_before = trace["began"], 0.0
    for phase, at, cpu in trace["marks"]:
        costs.add(phase, at - before, cpu - cpu_before)
        before, cpu_before = at, cpu
    costs.add(
        "the interpreter ends", trace["began"] + run.wall - before, max(run.cpu - cpu_before, 0)
    )
    costs.add(WHOLE, run.wall, run.cpu)
    commands: dict[str, int] = trace["commands"]
    return commands


def _ssh(lab: Lab, scratch: str) -> str:
    """A connection that stays up."""
    options = f"-o ControlPath={scratch}/%n -o ControlMaster=auto -o ControlPersist=60"
    return f"ssh -F {lab.ssh_config} -o BatchMode=yes {options}"


def _steps(lab: Lab, scratch: str) -> dict[str, str]:
    pyinfra = str(Path(sys.executable).with_name("pyinfra"))
    hosts = [host.name for host in lab.hosts]
    warm = _ssh(lab, scratch)

    def everywhere(command: str) -> str:
        return " ".join(f"{warm} {host} {command} &" for host in hosts) + " wait"

    return {
        "`python -c pass`": f"{sys.executable} -c pass",
        "`pyinfra --version`": f"{pyinfra} --version",
        LEAST: f"{pyinfra} -y --sudo inventory exec -- true",
        "`ssh host true` over a connection that is up": f"{warm} {hosts[0]} true",
        "the same on all hosts at once": everywhere("true"),
        "`ssh host sudo -n true` on all hosts at once": everywhere("sudo -n true"),
    }


def _shell(command: str, farrier: Converge) -> Run:
    return timed(["sh", "-c", command], cwd=ROOT, env=farrier.env, leaders=farrier.leaders)
