"""Kernel logs for tests: real FIFOs and files, and a stand-in for /dev/kmsg."""

from __future__ import annotations

import os
import pty
import termios
import time
from pathlib import Path

from farrier_agent.collectors.xid import XidLog

BOOT = "11111111-1111-1111-1111-111111111111"
C1 = "00000000:C1:00.0"
FALLEN = "NVRM: Xid (PCI:0000:c1:00): 79, pid=1, name=x, GPU has fallen off the bus."


def xid(number: int, pci: str = "0000:c1:00", rest: str = "pid=1, name=x, Ch 00000008") -> str:
    """A line of the kernel's."""
    return f"NVRM: Xid (PCI:{pci}): {number}, {rest}"


class Ring:
    """A stand-in for /dev/kmsg: a device that gives one record for each read(2), then EAGAIN.

    It is a terminal, which gives one line for each read(2). Unlike the real one it forgets what was
    read, so :meth:`replay` writes all of it again for who opens it anew.
    """

    def __init__(self) -> None:
        self._master, self._slave = pty.openpty()
        mode = termios.tcgetattr(self._slave)
        mode[3] &= ~termios.ECHO
        termios.tcsetattr(self._slave, termios.TCSANOW, mode)
        self.path = Path(os.ttyname(self._slave))
        self._records: list[bytes] = []
        self._seq = 100

    def write(self, text: str, *, seconds: float | None = None, skip: int = 0) -> None:
        """The kernel logs *text*, after *skip* records that are overwritten unread."""
        self._seq += 1 + skip
        seconds = time.monotonic() if seconds is None else seconds
        record = f"4,{self._seq},{int(seconds * 1e6)},-;{text}\n".encode()
        self._records.append(record)
        os.write(self._master, record)

    def replay(self) -> None:
        """All of it can be read again."""
        os.write(self._master, b"".join(self._records))

    def close(self) -> None:
        os.close(self._master)
        os.close(self._slave)


class Fifo:
    """A FIFO and who writes to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)

    def write(self, text: str, end: str = "\n") -> None:
        """Somebody opens it, writes, and goes away."""
        handle = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        os.write(handle, (text + end).encode())
        os.close(handle)


def log_of(kmsg: Path, directory: Path, boot_id: str = BOOT) -> XidLog:
    return XidLog(kmsg, directory / "state" / "xids.json", boot_id=boot_id)
