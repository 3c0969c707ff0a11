"""Prints where every thread of a unit stands: ``python stacks.py UNIT [PROC]``.

A program of its own, of the standard library alone, so that nothing in /proc that blocks can block
the agent. It reads no command line and no environment: both take a lock that a wedged process may
hold, and both hold secrets.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Reader", "lines", "processes"]

MOST_THREADS = 4000
STATUS = ("State", "PPid", "Threads", "VmRSS", "VmSwap", "SigBlk", "SigIgn")


def processes(proc: Path, unit: str) -> list[int]:
    """The processes in the control group of *unit*, by their number."""
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        groups = Reader().text(entry / "cgroup").splitlines()
        if any(f"/{unit}/" in f"{group}/" for group in groups):
            found.append(int(entry.name))
    return sorted(found)


class Reader:
    """Reads files that may be gone, or not for everybody; keeps what was ``denied``."""

    def __init__(self) -> None:
        self.denied: set[str] = set()

    def text(self, path: Path) -> str:
        """The text of *path*, empty when it cannot be read."""
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except PermissionError:
            self.denied.add(path.name)
        except OSError:  # it ended meanwhile
            pass
        return ""


def lines(proc: Path, unit: str) -> Iterator[str]:
    """Every process of *unit* with its threads, and where the kernel has each of them."""
    found = processes(proc, unit)
    yield f"{len(found)} processes in the control group of {unit}"
    reader, count = Reader(), 0
    for pid in found:
        pairs = (line.partition(":") for line in reader.text(proc / f"{pid}/status").splitlines())
        status = {name: value.strip() for name, _, value in pairs}
        facts = ", ".join(f"{name} {status[name]}" for name in STATUS if name in status)
        yield f"\nprocess {pid} ({status.get('Name', 'gone')}): {facts}"
        for task in _tasks(proc / f"{pid}/task"):
            count += 1
            if count > MOST_THREADS:
                yield f"\nmore than {MOST_THREADS} threads: the rest is left out"
                return
            yield from _thread(task, reader)
    if reader.denied:
        yield f"\nnot permitted to read: {', '.join(sorted(reader.denied))}"


def _thread(task: Path, reader: Reader) -> Iterator[str]:
    comm, wchan = (reader.text(task / name).strip() for name in ("comm", "wchan"))
    # the state is the first field after the name, which may hold anything but a newline
    state = reader.text(task / "stat").rpartition(")")[2].split()[:1]
    yield f"  thread {task.name} ({comm}): {''.join(state)} {wchan}".rstrip()
    yield from (f"    {line}" for line in reader.text(task / "stack").splitlines())


def _tasks(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir(), key=lambda task: (len(task.name), task.name))
    except OSError:
        return []


if __name__ == "__main__":
    for one in lines(Path(sys.argv[2] if len(sys.argv) > 2 else "/proc"), sys.argv[1]):
        print(one, flush=True)
