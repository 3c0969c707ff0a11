"""A control group of its own for every machine.

systemd-nspawn makes ``payload`` and ``supervisor`` below the cgroup that it is started in. Where
nothing gives each machine another one (systemd would), the guests of all labs would share these:
every guest's systemd would then remove groups that another one has just made for a unit, and kill
what runs in them.
"""

from __future__ import annotations

import os
import signal
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


def remove(machine: str, patience: float = 30) -> None:
    """End what still runs in *machine*'s groups, and remove them.

    A PID 1 that was killed leaves its group when the kernel has ended all of its namespace.
    """
    deadline = time.monotonic() + patience
    for group in groups(machine):
        while group.exists():
            for directory, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):
                    Path(directory).rmdir()
            if not group.exists():
                break
            left = _processes(group)
            if time.monotonic() > deadline:
                raise LabError(f"{group} cannot be removed, in it is still {left}: ps -fp …")
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


def _processes(group: Path) -> list[int]:
    found = []
    for file in group.glob("**/cgroup.procs"):
        with suppress(OSError):  # it goes while it is read
            # 0 is a process of another PID namespace than this one's
            found += [pid for pid in map(int, file.read_text().split()) if pid]
    return found
