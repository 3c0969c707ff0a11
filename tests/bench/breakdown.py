"""Where a no-change converge spends its time, and what it could not do without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from farrier.lab import Lab
from tests.bench.course import ROOT
from tests.bench.farrier_side import Converge
from tests.bench.figures import table
from tests.bench.runs import Run, timed

__all__ = ["breakdown"]

REPEATS = 7
Say = Callable[[str], None]


def breakdown(lab: Lab, farrier: Converge, say: Say) -> str:
    """The section of the page: phases of the converge, and floors beneath it."""
    say(f"breaking down {REPEATS} converges")
    phases, commands = _phases(farrier)
    say("measuring the floor beneath them")
    floors = _floors(lab, farrier.leaders)
    counts = sorted(set(commands.values()))
    text = [
        f"`python -m tests.bench --breakdown`, medians of {REPEATS} runs each.",
        table(["phase of a converge", "wall, ms", "CPU here, ms"], phases),
        f"Commands per host: {', '.join(map(str, counts))}"
        f" ({', '.join(f'{host} {count}' for host, count in sorted(commands.items()))}).",
        table(["what nothing of this kind can do without", "wall, ms", "CPU here, ms"], floors),
    ]
    return "\n\n".join(text)


def _phases(farrier: Converge) -> tuple[list[list[str]], dict[str, int]]:
    walls: dict[str, list[float]] = {}
    cpus: dict[str, list[float]] = {}
    commands: dict[str, int] = {}
    for number in range(REPEATS + 1):
        with tempfile.NamedTemporaryFile() as file:
            env = dict(farrier.env) | {"FARRIER_BENCH_BEGAN": str(time.monotonic())}
            argv = [sys.executable, "-m", "tests.bench.trace", file.name]
            run = timed(argv, cwd=ROOT, env=env, leaders=farrier.leaders)
            trace = json.loads(Path(file.name).read_text())
        if number == 0:
            continue  # a warm-up
        before, cpu_before = trace["began"], 0.0
        for phase, at, cpu in trace["marks"]:
            walls.setdefault(phase, []).append(at - before)
            cpus.setdefault(phase, []).append(cpu - cpu_before)
            before, cpu_before = at, cpu
        end = trace["began"] + run.wall
        walls.setdefault("the interpreter ends", []).append(end - before)
        cpus.setdefault("the interpreter ends", []).append(run.cpu - cpu_before)
        walls.setdefault("**together**", []).append(run.wall)
        cpus.setdefault("**together**", []).append(run.cpu)
        commands = trace["commands"]
    rows = [[phase, _ms(walls[phase]), _ms(cpus[phase])] for phase in walls]
    return rows, commands


def _floors(lab: Lab, leaders: Sequence[int]) -> list[list[str]]:
    pyinfra = str(Path(sys.executable).with_name("pyinfra"))
    host, *others = [host.name for host in lab.hosts]
    rows = []
    with tempfile.TemporaryDirectory(prefix="farrier-bench-") as scratch:
        ssh = f"ssh -F {lab.ssh_config} -o BatchMode=yes"
        warm = f"{ssh} -o ControlPath={scratch}/%n -o ControlMaster=auto -o ControlPersist=60"
        everyone = [host, *others]

        def at_once(command: str) -> str:
            return " ".join(f"{warm} {name} {command} &" for name in everyone) + " wait"

        floors = {
            "`python -c pass`": f"{sys.executable} -c pass",
            "`pyinfra --version`": f"{pyinfra} --version",
            "`ssh host true`, a connection of its own": f"{ssh} {host} true",
            "`ssh host true` over a connection that is up": f"{warm} {host} true",
            "the same on all hosts at once": at_once("true"),
            "`sudo -n true` on all hosts at once, connections up": at_once("sudo -n true"),
            "`sudo -n systemctl show` on all hosts at once, connections up": at_once(
                "sudo -n systemctl show -p ActiveState ssh.service"
            ),
        }
        for name, command in floors.items():
            runs = [_shell(command, leaders) for _ in range(REPEATS + 1)][1:]
            rows.append([name, _ms([run.wall for run in runs]), _ms([run.cpu for run in runs])])
        for name in everyone:
            close = [*warm.split(), "-O", "exit", name]
            subprocess.run(close, capture_output=True, check=False)
    return rows


def _shell(command: str, leaders: Sequence[int]) -> Run:
    return timed(["sh", "-c", command], cwd=ROOT, env=os.environ, leaders=leaders)


def _ms(seconds: Sequence[float]) -> str:
    return f"{median(seconds) * 1000:.0f}"
