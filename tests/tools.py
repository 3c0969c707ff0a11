"""Programs of Prometheus and Alertmanager that tests run: promtool, prometheus, amtool."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["UNPACKED", "tool"]

UNPACKED = Path(__file__).parents[1] / ".venv-tools" / "prometheus" / "usr" / "bin"
"""Where scripts/bootstrap --tools puts them, without installing their packages."""


def tool(name: str) -> str:
    """The path of the program *name*. Fails where it is not: nothing is skipped for want of it."""
    unpacked = UNPACKED / name
    found = str(unpacked) if unpacked.exists() else shutil.which(name)
    assert found, f"{name} is not here; next: make bootstrap"
    return found
