"""A converge of one host: pyinfra in a process of its own, as an operator types it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from farrier.rollout.errors import RolloutError

__all__ = ["DEPLOY", "converge"]

DEPLOY = "deploys/llm.py"
LAST_LINES = 12


def converge(host: str, inventory: str, log: Path) -> str:
    """Converge *host*; everything that pyinfra says goes to *log*. The end of it is returned.

    Raises RolloutError with the last lines when it fails. It interrupts nothing on the host, and
    may be run again.
    """
    program = Path(sys.executable).with_name("pyinfra")
    argv = [str(program), "-y", "--limit", host, inventory, DEPLOY]
    try:
        with log.open("wb") as file:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False
            )
    except OSError as error:
        raise RolloutError(f"{host}: pyinfra cannot be run: {error}") from error
    said = log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    last = "\n".join(said[-LAST_LINES:])
    if done.returncode:
        raise RolloutError(
            f"{host}: the converge failed (exit code {done.returncode}), nothing was drained:"
            f"\n{last}",
            f"less {log}; then {' '.join(argv[1:])}".replace("; then -y", "; then pyinfra -y"),
        )
    return last
