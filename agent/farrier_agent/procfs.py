"""Processes in procfs: which unit each belongs to. *proc* is where procfs is; all of it may block.

A process may end while it is looked at: then it is gone, which is never an error here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from farrier_agent.wording import printable

__all__ = ["PROC", "Process", "groups", "look", "unit_in", "unit_of"]

PROC = Path("/proc")
MAX_COMMAND = 64
_USER = re.compile(r"user-(\d{1,10})\.slice")


class Process(NamedTuple):
    """A process. ``started`` is in clock ticks since the boot, ``unit`` None where it is in none.

    ``command`` is the name that it gave itself, bounded and printable.
    """

    pid: int
    started: int
    unit: str | None
    command: str


def groups(proc: Path, process: str) -> list[str]:
    """The control groups of a process that systemd manages: of version 2, or its own of 1."""
    text = (proc / process / "cgroup").read_text(encoding="utf-8", errors="replace")
    fields = [line.split(":", 2) for line in text.splitlines() if line.count(":") >= 2]
    return [path for _, name, path in fields if name in {"", "name=systemd"} and path != "/"]


def unit_in(group: str) -> str | None:
    """The service or scope in the path of a control *group*; None when there is none.

    What a user runs belongs to that user's manager (``user@1000``): of sessions and services of
    users there is no end, and a host cares for none of them.
    """
    parts = Path(group.removesuffix(" (deleted)")).parts
    for part in parts:
        if found := _USER.fullmatch(part):
            return f"user@{found[1]}"
    return next((part for part in reversed(parts) if part.endswith((".service", ".scope"))), None)


def unit_of(pid: int, *, proc: Path = PROC) -> str | None:
    """The service or scope that process *pid* belongs to; None when that cannot be told."""
    try:
        found = groups(proc, str(pid))
    except OSError:
        return None
    return next((unit for group in found if (unit := unit_in(group)) is not None), None)


def look(pid: int, *, proc: Path = PROC) -> Process | None:
    """Process *pid*; None when there is none, or another one took its number meanwhile."""
    try:
        started = _started(pid, proc)
        unit = unit_of(pid, proc=proc)
        command = (proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace")
        if _started(pid, proc) != started:
            return None
    except (OSError, ValueError, IndexError):
        return None
    return Process(pid, started, unit, printable(command).strip()[:MAX_COMMAND])


def _started(pid: int, proc: Path) -> int:
    text = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    # proc_pid_stat(5): field 22, and field 2 is a name that may have spaces and brackets in it
    return int(text.rpartition(")")[2].split()[19])
