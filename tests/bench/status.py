"""``farrier status`` of 1, 10 and 100 targets, against as many bare logins of OpenSSH.

The targets are names of the lab's three hosts that serve: each login, question and answer is
real, the machines behind them are three.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from tests.bench import pages
from tests.bench.course import leaders
from tests.bench.figures import table
from tests.bench.fleet import Fleet
from tests.bench.onehost import until
from tests.bench.runs import Run, timed
from tests.bench.spread import span

__all__ = ["inventory", "status"]

ROUNDS = 5
TARGETS = (1, 10, 100)
PARALLEL = 32
"""As many hosts as ``farrier status`` asks at once."""
OURS, BARE = "`farrier status`", f"`ssh HOST true`, {PARALLEL} at once"


def status(fleet: Fleet, say: Callable[[str], None]) -> None:
    """Measure it, and write its section."""
    until(lambda: not any(row["error"] for row in fleet.rows()), 60, "every host answers")
    ssh = timed(["ssh", "-V"], cwd=fleet.directory, env={}, leaders=()).output.strip()
    written = pages.written("make bench PART=status", f"here and on the hosts {ssh}")
    pids = leaders(fleet.lab)
    found: dict[int, dict[str, list[Run]]] = {}
    for count in TARGETS:
        file = fleet.directory / f"targets-{count}.py"
        file.write_text(inventory(fleet, count))
        ways = {OURS: _ours(file), BARE: _bare(fleet, count)}
        found[count] = {name: [] for name in ways}
        for number in range(ROUNDS + 1):  # the first one warms up
            for name, argv in ways.items():
                run = timed(argv, cwd=fleet.directory, env=fleet.environment, leaders=pids)
                say(f"{count} targets, {name}: {run.wall:.2f} s, {run.cpu:.2f} s CPU here")
                if number:
                    found[count][name].append(run)
    pages.rewrite("status", _text(written, found))


def inventory(fleet: Fleet, count: int) -> str:
    """An inventory of *count* names of the hosts that serve, as an operator would write it."""
    hosts = []
    for number in range(count):
        address = fleet.addresses[fleet.gpus[number % len(fleet.gpus)]]
        hosts.append((f"n{number + 1:03}", {"ssh_hostname": address}))
    common = {
        "ssh_user": "farrier",
        "ssh_key": str(fleet.lab.user_key),
        "ssh_known_hosts_file": str(fleet.lab.known_hosts),
        "accelerator": "cpu",
        "api_keys_file": str(fleet.lab.keys_file),
    }
    lines = [
        "from farrier.spec import Model",
        "",
        f"_common = {common!r}",
        "_command = ['/usr/bin/python3', '/opt/standin.py', '--port', '{port}']",
        "_tiny = Model(name='tiny', engine='custom', gpus=[], port=8101, command=_command)",
        f"_hosts = {hosts!r}",
        "gpu = [(name, {**_common, **data, 'models': [_tiny]}) for name, data in _hosts]",
    ]
    return "\n".join([*lines, ""])


def _ours(file: Path) -> Sequence[str | Path]:
    return [Path(sys.executable).with_name("farrier"), "status", "--json", "--inventory", file]


def _bare(fleet: Fleet, count: int) -> Sequence[str]:
    names = " ".join(fleet.gpus[number % len(fleet.gpus)] for number in range(count))
    ssh = f"ssh -F {shlex.quote(str(fleet.lab.ssh_config))} -o ControlPath=none"
    return ["sh", "-c", f"printf '%s\\n' {names} | xargs -P {PARALLEL} -I HOST {ssh} HOST true"]


def _text(written: str, found: dict[int, dict[str, list[Run]]]) -> str:
    rows = []
    for count, runs in found.items():
        base = runs[BARE]
        for name, ours in runs.items():
            pairs = [one.wall / other.wall for one, other in zip(ours, base, strict=True)]
            rows.append(
                [
                    f"{count} target{'s' if count > 1 else ''}: {name}",
                    span([one.wall for one in ours], bold=True),
                    f"{median(one.cpu for one in ours):.2f}",
                    f"{median(one.hosts for one in ours):.2f}",
                    "1" if name == BARE else span(pairs),
                ]
            )
    head = ["", "wall, s", "CPU here, s", "CPU on the hosts, s", "times the bare logins' wall"]
    return "\n\n".join(
        [
            written,
            table(head, rows),
            f"Medians of {ROUNDS} runs, in turns, in brackets the fastest and the slowest;"
            f" the ratios are of the same round. {pages.ended()}",
        ]
    )
