"""The inventory read as pyinfra reads it, in a process of its own.

gevent, which pyinfra's command line starts with, replaces sockets and threads of the whole process;
fabric needs the real ones. So the answer comes over a pipe.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from farrier.fleet.errors import InventoryError
from farrier.fleet.target import FleetTargets

__all__ = ["read_fleet_targets"]


def read_fleet_targets(inventory: str = "inventory", limit: Sequence[str] = ()) -> FleetTargets:
    """The hosts of *inventory*; ``chosen`` are those that *limit* picks, all without it.

    *inventory* is as for pyinfra: the directory means ``inventory/$FARRIER_ENV.py``. *limit* are
    names, patterns or groups. Raises :class:`InventoryError`; no host is asked anything.
    """
    argv = [sys.executable, "-m", "farrier.fleet.resolve", "--inventory", inventory, "--", *limit]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    try:
        told = json.loads(done.stdout)
    except ValueError:
        raise InventoryError(_crash(done.stderr)) from None
    if "error" in told:
        raise InventoryError(told["error"], tuple(told["problems"]), done.returncode or 1)
    sys.stderr.write(done.stderr)
    return FleetTargets.from_json(told)


def _crash(said: str) -> str:
    last = said.strip().splitlines()[-1:] or ["it said nothing"]
    return (
        f"the inventory could not be read: {last[0]}\n"
        "  To see all of it: pyinfra inventory debug-inventory"
    )
