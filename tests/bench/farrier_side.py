"""Farrier's converge as a contestant: the command that the operator types, and what it must say."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.course import ROOT
from tests.bench.runs import Run, RunFailedError, timed

__all__ = ["COMMAND", "Converge"]

COMMAND = "pyinfra -y inventory deploys/llm.py"
_OUTCOME = re.compile(
    r"^\s*\[(?P<host>[^\]]+)\]\s+(?P<word>Success|No changes|Error)", re.MULTILINE
)


class Converge:
    """``pyinfra -y inventory deploys/llm.py`` with *env* on *hosts*."""

    def __init__(
        self, env: Mapping[str, str], hosts: Sequence[str], leaders: Sequence[int]
    ) -> None:
        self.env = env
        self.hosts = sorted(hosts)
        self.leaders = leaders

    def run(self) -> Run:
        """Converge, whatever it changes."""
        pyinfra = Path(sys.executable).with_name("pyinfra")
        return timed([pyinfra, *COMMAND.split()[1:]], cwd=ROOT, env=self.env, leaders=self.leaders)

    def run_unchanged(self) -> Run:
        """Converge and see that every host was looked at and none changed."""
        run = self.run()
        changed, seen = self.changes(run.output)
        if changed or seen != self.hosts:
            raise RunFailedError(
                f"{COMMAND}: looked at {seen}, changed {changed}\n{run.output[-4000:]}"
            )
        return run

    def changes(self, output: str) -> tuple[list[str], list[str]]:
        """The hosts on which an operation changed something, and those that were looked at."""
        outcomes = [(match["host"], match["word"]) for match in _OUTCOME.finditer(output)]
        changed = {host for host, word in outcomes if word != "No changes"}
        return sorted(changed), sorted({host for host, _ in outcomes})
