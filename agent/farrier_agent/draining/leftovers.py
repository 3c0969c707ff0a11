"""Processes: those that a unit's control group still holds, and who a process is, in words.

Paths into /proc and /sys are parameters. A process may end while it is looked at: then it is gone,
which is never an error here.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from farrier_agent.procfs import PROC, groups, unit_of
from farrier_agent.wording import printable

__all__ = ["CGROUP", "PROC", "describe", "left_over", "unit_of"]

CGROUP = Path("/sys/fs/cgroup")


def left_over(unit: str, *, proc: Path = PROC, cgroup: Path = CGROUP) -> list[int] | None:
    """The processes of *unit*'s control group, without the one that asks from inside of it.

    None when the one that asks is not inside. Raises OSError where *proc* cannot be read.
    """
    for path in groups(proc, "self"):
        parts = Path(path).parts
        if unit not in parts:
            continue
        inside = Path(*parts[1 : parts.index(unit) + 1])
        # version 1 has systemd's own hierarchy in a directory of that name; so has "hybrid"
        for root in (cgroup, cgroup / "unified", cgroup / "systemd"):
            if (root / inside).is_dir():
                return sorted(set(_processes(root / inside)) - {os.getpid()})
    return None


def _processes(directory: Path) -> Iterator[int]:
    for path in directory.rglob("cgroup.procs"):
        try:
            text = path.read_text(encoding="ascii")
        except OSError:  # the group went away
            continue
        # 0 is a process of another PID namespace
        yield from (int(word) for word in text.split() if word.isdigit() and word != "0")


def describe(pid: int, *, proc: Path = PROC) -> str:
    """Who process *pid* is, for a person: its name, number, user and unit."""
    try:
        name = (proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
        uid = (proc / str(pid)).stat().st_uid
    except OSError:
        return f"process {pid}, which is not seen from here (in a container, or just ended)"
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = f"uid {uid}"
    unit = unit_of(pid, proc=proc)
    return f"{printable(name)} (pid {pid}, {user}{', ' + unit if unit else ''})"
