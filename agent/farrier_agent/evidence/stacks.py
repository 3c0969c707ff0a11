"""Prints where every thread of a unit stands: ``python stacks.py UNIT [PROC]``.

A program of its own, of the standard library alone, so that nothing in /proc that blocks can block
the agent. It reads no command line and no environment: both take a lock that a wedged process may
hold, and both hold secrets.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["lines", "processes"]

MOST_THREADS = 4000
STATUS = ("State", "PPid", "Threads", "VmRSS", "VmSwap", "SigBlk", "SigIgn")


def processes(proc: Path, unit: str) -> list[int]:
    """The processes in the control group of *unit*, by their number."""
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        groups = _text(entry / "cgroup").splitlines()
        if any(f"/{unit}/" in f"{group}/" for group in groups):
            found.append(int(entry.name))
    return sorted(found)


def lines(proc: Path, unit: str) -> Iterator[str]:
    """Every process of *unit* with its threads, and where the kernel has each of them."""
    found = processes(proc, unit)
    yield f"{len(found)} processes in the control group of {unit}"
    count = 0
    for pid in found:
        pairs = (line.partition(":") for line in _text(proc / str(pid) / "status").splitlines())
        status = {name: value.strip() for name, _, value in pairs}
        facts = ", ".join(f"{name} {status[name]}" for name in STATUS if name in status)
        yield f"\nprocess {pid} ({status.get('Name', 'gone')}): {facts}"
        tasks = proc / str(pid) / "task"
        for task in sorted(_names(tasks), key=lambda name: (len(name), name)):
            count += 1
            if count > MOST_THREADS:
                yield f"\nmore than {MOST_THREADS} threads: the rest is left out"
                return
            yield from _thread(tasks / task)


def _thread(task: Path) -> Iterator[str]:
    comm, wchan = _text(task / "comm").strip(), _text(task / "wchan").strip()
    # the state is the first field after the name, which may hold anything but a newline
    state = _text(task / "stat").rpartition(")")[2].split()[:1]
    yield f"  thread {task.name} ({comm}): {''.join(state)} {wchan}".rstrip()
    yield from (f"    {line}" for line in _text(task / "stack").splitlines())


def _names(directory: Path) -> list[str]:
    try:
        return [entry.name for entry in directory.iterdir()]
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    for one in lines(Path(sys.argv[2] if len(sys.argv) > 2 else "/proc"), sys.argv[1]):
        print(one, flush=True)
