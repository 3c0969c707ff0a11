"""Watches one lab host, and this machine, for secrets that somebody else could read.

Started as a program of its own, so that it looks while a deploy runs::

    python watcher.py ROOT DIRECTORY...

with the needles (one per line, ``name value``) on stdin until an empty line. It says ``watching``
when it does, and at the end of stdin it prints what it found as JSON: a list of ``[how, name,
where]``. It sees

- the arguments and the environment of every program that is executed, here and on every host of
  the machine (the kernel's process connector tells which; besides, all of /proc is read over and
  over);
- every file under ROOT and the DIRECTORIES at the moment in which its writer closes it (fanotify:
  the event carries the open file, so that it is read even if it was removed at once), if its mode
  lets others read it.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import stat
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

# linux/connector.h, linux/cn_proc.h
NETLINK_CONNECTOR, CN_IDX_PROC, PROC_CN_MCAST_LISTEN, PROC_EVENT_EXEC = 11, 1, 1, 2
# linux/fanotify.h
FAN_CLOEXEC, FAN_NONBLOCK, FAN_UNLIMITED_QUEUE = 0x1, 0x2, 0x10
FAN_MARK_ADD, FAN_MARK_FILESYSTEM, FAN_CLOSE_WRITE = 0x1, 0x100, 0x8
AT_FDCWD = -100
EVENT = struct.Struct("=IBBHQii")
LARGEST = 4 << 20
"""Bytes of a file that are looked at: configurations are smaller, wheels are not."""


class Findings:
    """What was found, each once."""

    def __init__(self, needles: Mapping[str, bytes]) -> None:
        self.needles = needles
        self.found: dict[tuple[str, str, str], None] = {}

    def look(self, how: str, content: bytes, where: str) -> None:
        """Remember the needles that *content* has."""
        for name, needle in self.needles.items():
            if needle in content:
                self.found[how, name, where] = None


class Executions:
    """The kernel's news of programs that are executed."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_CONNECTOR)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.bind((os.getpid(), CN_IDX_PROC))
        message = struct.pack("=IIIIHHI", CN_IDX_PROC, 1, 0, 0, 4, 0, PROC_CN_MCAST_LISTEN)
        self.socket.send(struct.pack("=IHHII", 16 + len(message), 3, 0, 0, os.getpid()) + message)
        self.socket.setblocking(False)

    def pids(self) -> Iterator[int]:
        """Those that executed something since the last call."""
        while True:
            try:
                event = self.socket.recv(4096)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: too many at once; /proc is read anyway
                continue
            if len(event) >= 56 and struct.unpack_from("=I", event, 36)[0] == PROC_EVENT_EXEC:
                yield struct.unpack_from("=i", event, 52)[0]


class Closings:
    """Files that were open for writing and are closed, anywhere on the file systems of *places*."""

    def __init__(self, places: list[str]) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        flags = FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE
        self.descriptor = self._must(self.libc.fanotify_init(flags, os.O_RDONLY | os.O_CLOEXEC))
        mark = self.libc.fanotify_mark
        mark.argtypes = [
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint64,
            ctypes.c_int,
            ctypes.c_char_p,
        ]
        how = FAN_MARK_ADD | FAN_MARK_FILESYSTEM
        for place in places:
            self._must(mark(self.descriptor, how, FAN_CLOSE_WRITE, AT_FDCWD, place.encode()))

    def _must(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"fanotify: {os.strerror(number)}")
        return result

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Path and content of those that others may read."""
        while True:
            try:
                events = os.read(self.descriptor, 65536)
            except BlockingIOError:
                return
            offset = 0
            while offset < len(events):
                length, _, _, _, _, descriptor, _ = EVENT.unpack_from(events, offset)
                offset += length
                if descriptor >= 0:
                    with os.fdopen(descriptor, "rb", buffering=0) as file:
                        if os.fstat(descriptor).st_mode & (stat.S_IROTH | stat.S_IRGRP):
                            path = Path(f"/proc/self/fd/{descriptor}").readlink()
                            yield str(path), file.read(LARGEST) or b""


def process(findings: Findings, pid: int) -> None:
    """Look at process *pid*, if it is still there."""
    with suppress(OSError):
        argv = Path(f"/proc/{pid}/cmdline").read_bytes()
        where = argv.replace(b"\0", b" ").decode(errors="replace")[:300]
        findings.look("argv", argv, where)
        findings.look("environ", Path(f"/proc/{pid}/environ").read_bytes(), where)


def watch(findings: Findings, places: list[str]) -> None:
    """Look until stdin ends."""
    executions, closings = Executions(), Closings(places)
    with suppress(PermissionError):
        os.nice(-10)
    print("watching", flush=True)
    everybody: list[int] = []
    while True:
        ready, _, _ = select.select(
            [sys.stdin, executions.socket, closings.descriptor], [], [], 0.005
        )
        for pid in executions.pids():
            process(findings, pid)
        for path, content in closings.files():
            findings.look("file", content, path)
        # A few at a time: what was just executed may be gone in a millisecond.
        everybody = everybody or [
            int(it.name) for it in Path("/proc").iterdir() if it.name.isdigit()
        ]
        for _ in range(min(5, len(everybody))):
            process(findings, everybody.pop())
        if sys.stdin in ready and not sys.stdin.readline():
            return


def main() -> int:
    needles = {}
    while line := sys.stdin.readline().strip():
        name, _, value = line.partition(" ")
        needles[name] = value.encode()
    findings = Findings(needles)
    watch(findings, sys.argv[1:])
    print(json.dumps(list(findings.found)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
