"""A program of the operator's before and after each host: ``--hook-before``, ``--hook-after``.

It runs on the operator's machine, with the environment of ``farrier`` and besides

    FARRIER_ROLLOUT    the rollout's ID
    FARRIER_KIND       restart, converge, reboot, run, rollback, driver, gpu-reset or gpu-diag
    FARRIER_WHEN       before or after
    FARRIER_HOST       the host's name in the inventory
    FARRIER_ADDRESS    where other hosts reach it
    FARRIER_REPLICAS   its replicas in this rollout, with spaces between
    FARRIER_MODELS     their models, with spaces between
    FARRIER_BATCH      the batch's number, from 1
    FARRIER_LEDGER     the ledger's file

Any other exit code than 0 stops the rollout. After ``resume`` a hook whose end is not known runs
again.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Literal

from farrier.fleet import Target
from farrier.rollout.errors import RolloutError, UsageError
from farrier.rollout.ledger import HostRecord, Ledger

__all__ = ["SECONDS", "check_hook", "environment", "run_hook"]

SECONDS = 1800.0
"""How long a hook may take."""


def check_hook(path: str | None) -> None:
    """Raise UsageError where *path* is no program."""
    if path is not None and not os.access(path, os.X_OK):
        raise UsageError(f"hook {path}: not a file that can be run (chmod +x?)")


def environment(
    ledger: Ledger, record: HostRecord, target: Target, when: Literal["before", "after"], file: Path
) -> dict[str, str]:
    """What a hook is told."""
    return {
        "FARRIER_ROLLOUT": ledger.id,
        "FARRIER_KIND": ledger.kind,
        "FARRIER_WHEN": when,
        "FARRIER_HOST": record.host,
        "FARRIER_ADDRESS": target.address,
        "FARRIER_REPLICAS": " ".join(one.name for one in record.replicas),
        "FARRIER_MODELS": " ".join(dict.fromkeys(one.model for one in record.replicas)),
        "FARRIER_BATCH": str(record.batch + 1),
        "FARRIER_LEDGER": str(file.absolute()),
    }


def run_hook(path: str, told: dict[str, str]) -> None:
    """Run the hook at *path*. Raises RolloutError unless it ends with 0."""
    said = b""
    try:
        done = subprocess.run(
            [str(Path(path).absolute())],
            env=os.environ | told,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
        said, how = done.stdout, f"ended with {done.returncode}"
        if done.returncode == 0:
            return
    except subprocess.TimeoutExpired:
        how = f"did not end within {SECONDS:.0f} s"
    except OSError as error:
        how = f"cannot be run: {error.strerror}"
    last = "; ".join(said.decode(errors="replace").strip().splitlines()[-3:])
    raise RolloutError(f"{told['FARRIER_HOST']}: the hook {path} {how}{': ' if last else ''}{last}")
