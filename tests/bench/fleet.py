"""The whole lab ``bench`` as a fleet: a gateway, and three hosts that serve one model each.

The engines are stand-ins that take ``START`` seconds until they are healthy, as a small real one
would; everything else is real.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from farrier.lab import Lab
from farrier.load import Endpoint
from tests.bench.course import ROOT, course
from tests.bench.models import STAND_IN
from tests.bench.onehost import until
from tests.roles.converging import Converge

__all__ = ["START", "Fleet", "FleetError", "fleet"]

START = 4.0
"""Seconds that the engines take to start."""
FARRIER = Path(sys.executable).with_name("farrier")


class FleetError(RuntimeError):
    """The fleet does not do what a benchmark needs; the message says what it said."""


class Fleet:
    """The hosts of *lab*, converged; *environment* is the one in which ``farrier`` means them."""

    def __init__(self, lab: Lab, environment: Mapping[str, str], directory: Path) -> None:
        self.lab = lab
        self.environment = environment
        self.directory = directory
        self.addresses = {host.name: str(host.address) for host in lab.hosts}
        self.gpus = [host.name for host in lab.hosts if "gpu" in host.groups]
        keys = tomllib.loads(lab.keys_file.read_text())["keys"]
        self.endpoint = Endpoint(
            f"http://{self.addresses['gw01']}", dict([next(iter(keys.items()))])
        )

    def farrier(self, *argv: str) -> str:
        """What ``farrier ARGV`` printed. Raises FleetError unless it exits 0."""
        done = subprocess.run(
            [str(FARRIER), *argv],
            cwd=self.directory,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if done.returncode:
            said = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
            raise FleetError(f"farrier {' '.join(argv)}: exit {done.returncode}\n{said}")
        return done.stdout

    def rows(self) -> list[Any]:
        """What ``farrier status --json`` says, a row for each host."""
        return [json.loads(line) for line in self.farrier("status", "--json").splitlines()]

    def root(self, host: str, command: str) -> str:
        """What *command* printed on *host*, run by root's shell. Raises FleetError."""
        done = self.lab.ssh(host, f"sudo sh -c {_quoted(command)}", check=False)
        if done.returncode:
            raise FleetError(f"{host}: {command}: exit {done.returncode}\n{done.stderr}")
        return done.stdout

    def settle(self) -> None:
        """Return when every replica serves."""
        until(
            lambda: all(
                "tiny" in self.root(host, "ls /run/farrier/open").split() for host in self.gpus
            ),
            120,
            "every replica serves",
        )


@contextmanager
def fleet(say: Callable[[str], None]) -> Iterator[Fleet]:
    """The fleet, ready; taken down at the end unless FARRIER_KEEP_LAB=1."""
    with course(say) as lab, tempfile.TemporaryDirectory(prefix="farrier-bench-") as scratch:
        here = Path(scratch)
        for name in ("config.py", "inventory", "deploys", "roles", "farrier"):
            (here / name).symlink_to(ROOT / name)
        for host in lab.hosts:  # of a run that ended in the middle, where the lab is kept
            lab.ssh(host.name, "sudo systemctl stop 'bench-*'", check=False)
        it = Converge(lab, here)
        words = ["--port", "{port}", "--model", "{model}", "--start-delay", f"{START:g}"]
        model = {
            "name": "tiny",
            "engine": "custom",
            "gpus": [],
            "port": 8101,
            "command": ["/usr/bin/python3", STAND_IN, *words],
        }
        it.models = {host.name: [model] for host in lab.hosts if "gpu" in host.groups}
        run = it(timeout=900)
        if run.returncode:
            raise FleetError(f"the converge failed:\n{run.last_words(60)}")
        say(f"converged in {run.seconds:.0f} s")
        made = Fleet(lab, it.environment(), here)
        made.farrier("rollout", "restart", "-y", "--pending", "--allow-gap") if _pending(
            made
        ) else None
        made.settle()
        yield made


def _pending(it: Fleet) -> bool:
    """Some engine runs an older configuration, of a benchmark before."""
    return any(one.get("pending") for row in it.rows() for one in row.get("replicas", ()))


def _quoted(command: str) -> str:
    return "'" + command.replace("'", "'\\''") + "'"
