"""Programs that tests run: promtool, prometheus, amtool; nginx and haproxy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ["UNPACKED", "proxy", "tool"]

UNPACKED = Path(__file__).parents[1] / ".venv-tools" / "prometheus" / "usr" / "bin"
"""Where scripts/bootstrap --tools puts them, without installing their packages."""


def tool(name: str) -> str:
    """The path of the program *name*. Fails where it is not: nothing is skipped for want of it."""
    unpacked = UNPACKED / name
    found = str(unpacked) if unpacked.exists() else shutil.which(name)
    assert found, f"{name} is not here; next: make bootstrap"
    return found


PROXIES = UNPACKED.parents[2] / "proxies"


def proxy(name: str) -> tuple[str, dict[str, str]]:
    """The path of ``nginx`` or ``haproxy``, and the environment to run it with.

    Fails where it is not: nothing is skipped for want of it.
    """
    unpacked = PROXIES / "usr" / "sbin" / name
    if not unpacked.exists():
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        assert found, f"{name} is not here; next: make unit"
        return found, dict(os.environ)
    libraries = ":".join(str(one) for one in (PROXIES / "usr" / "lib").glob("*-linux-gnu"))
    return str(unpacked), os.environ | {"LD_LIBRARY_PATH": libraries}
