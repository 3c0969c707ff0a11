"""Processes: those that a unit's control group still holds, and who a process is, in words.

Paths into /proc and /sys are parameters. A process may end while it is looked at: then it is gone,
which is never an error here.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

__all__ = ["CGROUP", "PROC", "describe", "left_over", "unit_of"]

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")


def left_over(unit: str, *, proc: Path = PROC, cgroup: Path = CGROUP) -> list[int] | None:
    """The processes of *unit*'s control group, without the one that asks from inside of it.

    None when the one that asks is not inside. Raises OSError where *proc* cannot be read.
    """
    for path in _groups(proc, "self"):
        parts = Path(path).parts
        if unit not in parts:
            continue
        inside = Path(*parts[1 : parts.index(unit) + 1])
        # version 1 has systemd's own hierarchy in a directory of that name; so has "hybrid"
        for root in (cgroup, cgroup / "unified", cgroup / "systemd"):
            if (root / inside).is_dir():
                return sorted(set(_processes(root / inside)) - {os.getpid()})
    return None


def _groups(proc: Path, process: str) -> list[str]:
    """The control groups of a process that systemd manages: of version 2, or its own of 1."""
    lines = (proc / process / "cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    fields = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    return [path for _, name, path in fields if name in {"", "name=systemd"} and path != "/"]


def _processes(directory: Path) -> Iterator[int]:
    for path in directory.rglob("cgroup.procs"):
        try:
            text = path.read_text(encoding="ascii")
        except OSError:  # the group went away
            continue
        # 0 is a process of another PID namespace
        yield from (int(word) for word in text.split() if word.isdigit() and word != "0")


def unit_of(pid: int, *, proc: Path = PROC) -> str | None:
    """The service or scope that process *pid* belongs to; None when that cannot be told."""
    try:
        groups = _groups(proc, str(pid))
    except OSError:
        return None
    for group in groups:
        for part in reversed(Path(group).parts):
            if part.endswith((".service", ".scope")):
                return part
    return None


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
    printable = "".join(letter if letter.isprintable() else "?" for letter in name)
    return f"{printable} (pid {pid}, {user}{', ' + unit if unit else ''})"
