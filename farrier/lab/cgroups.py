"""A control group of its own for every machine.

systemd-nspawn makes ``payload`` and ``supervisor`` below the cgroup that it is started in. Where
nothing gives each machine another one (systemd would), the guests of all labs would share these:
every guest's systemd would then remove groups that another one has just made for a unit, and kill
what runs in them.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from farrier.lab.errors import LabError

__all__ = ["groups", "make", "remove"]

MOUNTS = Path("/proc/self/mounts")


def groups(machine: str, mounts: str | None = None) -> list[Path]:
    """The directories that are *machine*'s, in each hierarchy that systemd uses, made or not.

    *mounts* is the text of proc(5)'s ``mounts``.
    """
    lines = (MOUNTS.read_text(encoding="utf-8") if mounts is None else mounts).splitlines()
    found = []
    for _, directory, kind, options, *_ in map(str.split, lines):
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(directory, f"farrier-lab.{machine}"))
    return found


def make(machine: str) -> list[Path]:
    """Make *machine*'s groups; returns those that there are, in hierarchies that can be written."""
    made = []
    for group in groups(machine):
        with suppress(OSError):
            group.mkdir(exist_ok=True)
            made.append(group)
    return made


def remove(machine: str, patience: float = 10) -> None:
    """Remove *machine*'s groups; nothing runs in them any more."""
    deadline = time.monotonic() + patience
    for group in groups(machine):
        while group.exists():
            for directory, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):  # a process that was killed leaves its group a little later
                    Path(directory).rmdir()
            if time.monotonic() > deadline:
                raise LabError(f"{group} cannot be removed: cat {group}/cgroup.procs")
            time.sleep(0.01 if group.exists() else 0)
