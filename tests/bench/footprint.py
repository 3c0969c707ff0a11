"""Memory and CPU seconds of all processes of one unit on a host, read from outside it.

The operator's /proc shows the processes of a lab host, and reading it there costs the host nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "commands", "cpu_seconds", "memory", "processes"]

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """MiB, as /proc/PID/smaps_rollup adds them up (proc(5)).

    *unique* is private to the processes (USS); *share* counts a page that n processes map as one
    nth (PSS); *resident* counts it whole in each (RSS).
    """

    unique: float
    share: float
    resident: float


def processes(pid_one: int, unit: str) -> list[int]:
    """The processes of *unit* on the host whose PID 1 is *pid_one* here."""
    namespace = _link(Path(f"/proc/{pid_one}/ns/pid"))
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        and _link(entry / "ns/pid") == namespace
        and unit in _text(entry / "cgroup").rstrip().rpartition("\n")[2].split("/")
    ]


def commands(pid: int) -> list[str]:
    """The words of the command line of *pid*; none when it has ended."""
    return _text(Path(f"/proc/{pid}/cmdline")).split("\0")


def memory(pids: list[int]) -> Memory:
    """The memory of *pids* together."""
    unique = share = resident = 0
    for pid in pids:
        for line in _text(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
            name, _, value = line.partition(":")
            if name in {"Private_Clean", "Private_Dirty", "Private_Hugetlb"}:
                unique += int(value.split()[0])
            elif name == "Pss":
                share += int(value.split()[0])
            elif name == "Rss":
                resident += int(value.split()[0])
    return Memory(unique / 1024, share / 1024, resident / 1024)


def cpu_seconds(pids: list[int]) -> float:
    """CPU seconds so far of *pids*, children that ended included, to a hundredth."""
    ticks = 0
    for pid in pids:
        fields = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return ticks / _TICK


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it ended meanwhile
        return ""


def _link(path: Path) -> str | None:
    try:
        return os.readlink(path)  # noqa: PTH115 - the link's text, which is no path
    except OSError:
        return None
