"""Runs the real ``pyinfra`` on a lab's hosts, as an operator types it, and reads what it did."""

from __future__ import annotations

import json
import os
import pprint
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farrier.lab import Lab

__all__ = ["ROOT", "Converge", "Run"]

ROOT = Path(__file__).resolve().parents[2]
PYINFRA = Path(sys.executable).with_name("pyinfra")

Models = Mapping[str, Sequence[Mapping[str, Any]]]
HostData = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Run:
    """What one run of pyinfra said and did. *operations* is pyinfra's own JSON, one per operation.

    It has no operations when pyinfra gave up before or during them: every host failed.
    """

    returncode: int
    stdout: str
    stderr: str
    seconds: float
    operations: list[dict[str, Any]] = field(default_factory=list)
    failed_hosts: tuple[str, ...] = ()

    def changed(self, host: str) -> list[str]:
        """Names of the operations that changed something on *host*."""
        return [operation["name"] for operation in self.operations if host in operation["success"]]

    def unchanged(self, host: str) -> list[str]:
        """Names of the operations that found *host* as it should be."""
        return [
            operation["name"] for operation in self.operations if host in operation["no_change"]
        ]

    @property
    def hosts(self) -> set[str]:
        """The hosts on which any operation ran."""
        return {
            host
            for operation in self.operations
            for outcome in ("success", "no_change", "error")
            for host in operation[outcome]
        }

    def last_words(self, lines: int = 40) -> str:
        """The end of what it told the operator."""
        return "\n".join(self.stderr.splitlines()[-lines:])

    def last_section(self, heading: str) -> str:
        """The lines under *heading* (``Failed:``) among the run's last ones; empty without it."""
        *_, after = ["", *self.stderr.split(f"\n{heading}")[1:]]
        return after.partition("\n\n")[0]


class Converge:
    """Calls ``pyinfra -y --json inventory deploys/llm.py`` for the hosts of *lab*.

    *models* (a list of ``Model``'s arguments per host) and *data* (more host data per host) are
    what the inventory says until a test says otherwise for one run; *everywhere* is data of every
    host in group gpu, which the other data wins over.
    """

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.directory = directory
        self.models: dict[str, Sequence[Mapping[str, Any]]] = {}
        self.data: dict[str, Mapping[str, Any]] = {}
        self.everywhere: Mapping[str, Any] = {}
        self._runs = 0

    def __call__(
        self,
        *options: str,
        models: Models | None = None,
        data: HostData | None = None,
        limit: Sequence[str] = (),
        deploy: str = "deploys/llm.py",
        environment: Mapping[str, str] | None = None,
        timeout: float = 600,
    ) -> Run:
        """Run it to its end. *models* and *data* replace those of the hosts that they name."""
        began = time.monotonic()
        with self.start(
            *options, models=models, data=data, limit=limit, deploy=deploy, environment=environment
        ) as process:
            try:
                stdout, stderr = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                raise
        seconds = time.monotonic() - began
        try:
            results = json.loads(stdout).get("results") or {}
        except ValueError:
            results = {}
        return Run(
            process.returncode,
            stdout,
            stderr,
            seconds,
            results.get("operations", []),
            tuple(results.get("failed_hosts", ())),
        )

    def start(
        self,
        *options: str,
        models: Models | None = None,
        data: HostData | None = None,
        limit: Sequence[str] = (),
        deploy: str = "deploys/llm.py",
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start it in a process group of its own: for a run that is to be killed half-way."""
        limits = [word for name in limit for word in ("--limit", name)]
        return subprocess.Popen(
            [str(PYINFRA), "-y", "--json", *limits, *options, "inventory", deploy],
            cwd=ROOT,
            env=self.environment(models, data) | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def environment(
        self, models: Models | None = None, data: HostData | None = None
    ) -> dict[str, str]:
        """This process's environment, with the inventory of the lab chosen."""
        self._runs += 1
        file = self.directory / f"models-{self._runs}.py"
        said = {**self.data, **(data or {})}
        if self.everywhere:
            for host in self.lab.hosts:
                if "gpu" in host.groups:
                    said[host.name] = {**self.everywhere, **said.get(host.name, {})}
        file.write_text(_source({**self.models, **(models or {})}, said), encoding="utf-8")
        return os.environ | {
            "FARRIER_ENV": "lab",
            "FARRIER_LAB": self.lab.name,
            "FARRIER_LAB_MODELS": str(file),
        }


def _source(models: Models, data: HostData) -> str:
    """The file that FARRIER_LAB_MODELS names: an operator could have written it."""
    lines = ["from farrier.spec import Model", "", "models = {"]
    for host, served in models.items():
        lines.append(f"    {host!r}: [")
        for model in served:
            arguments = ", ".join(f"{name}={value!r}" for name, value in model.items())
            lines.append(f"        Model({arguments}),")
        lines.append("    ],")
    lines += ["}", "", f"data = {pprint.pformat({k: dict(v) for k, v in data.items()})}", ""]
    return "\n".join(lines)
