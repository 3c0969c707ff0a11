"""Record what each fact's script prints: see the package's docstring."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib import import_module

from farrier.facts.roots import Roots
from tests.unit.recorded import FACTS, HERE

RELEASE = "6.1.0-0-recorded"


def main(folder: str, where: str, command: list[str]) -> None:
    """Run every script through *command*, which reads it from standard input."""
    target = HERE / folder
    target.mkdir(exist_ok=True)
    for module, name in FACTS.items():
        fact = getattr(import_module(f"farrier.facts.{module}"), name)()
        done = subprocess.run(
            command, input=fact.command(Roots()), capture_output=True, text=True, check=True
        )
        output = re.sub(r"(?m)^cmdline .*$", "cmdline ro quiet", done.stdout)
        if running := re.search(r"(?m)^kernel (\S+)$", output):
            output = output.replace(running[1], RELEASE)
        today = datetime.now(UTC).date().isoformat()
        (target / f"{module}.txt").write_text(f"# Recorded {today}: {where}\n{output}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[4:])
