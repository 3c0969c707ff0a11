"""The agent's log: to journald with fields, or as lines on standard error where there is none.

A record's ``extra={"replica": …, "cause": …}`` become ``FARRIER_REPLICA`` and ``FARRIER_CAUSE``.

journald is spoken to in its own protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL) over a socket
that never blocks. ``systemd.journal`` of python3-systemd is not used for it: sd_journal_sendv(3)
waits while journald does not read, and the binding (235) waits with the interpreter's lock held.
Measured on Debian 12 with journald stopped (SIGSTOP): a thread that logged froze the whole process,
event loop and watchdog with it, after 513 entries and until journald went on. Here 3,000 entries
took 57 ms then, and 2,487 were lost. While journald is dead, systemd keeps its socket and what is
in it; where there is no socket any more, the binding raises ECONNREFUSED or loses the entry.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

__all__ = ["IDENTIFIER", "MAX_MESSAGE", "SOCKET", "JournalHandler", "set_up"]

SOCKET = Path("/run/systemd/journal/socket")
IDENTIFIER = "farrier-agent"
MAX_MESSAGE = 32 * 1024
"""Bytes of a message; what is longer is shortened, so that an entry fits into one datagram."""
_ON_ITS_WAY = 8 * 1024 * 1024

# sd-daemon(3): <3> error, <4> warning, <6> information, <7> debugging
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))
_EXTRAS = (("replica", "FARRIER_REPLICA"), ("cause", "FARRIER_CAUSE"))


def _priority(level: int) -> int:
    return next((priority for least, priority in _PRIORITIES if level >= least), 7)


class JournalHandler(logging.Handler):
    """Sends records to journald at *path*. Never blocks, never raises.

    What journald does not take (it hangs, it is gone, its queue is full) is lost, and counted: the
    next entry that it takes is preceded by one that says how many.
    """

    def __init__(self, path: Path = SOCKET) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        # as much as net.core.wmem_max lets it: what is on its way to journald counts
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ON_ITS_WAY)
        self.lost = 0
        """Records that journald did not take since it last took one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Send *record*, or count it as lost."""
        try:
            message = self.format(record)
        except Exception as error:  # a defect, which must not end what logged; nor may stderr block
            message = f"{record.msg!r} with {record.args!r:.1000} cannot be logged: {error!r}"
        entry = encoded(_fields(record, message))
        if self.lost and self._sent(encoded(_lost(self.lost))):
            self.lost = 0
        if self.lost or not self._sent(entry):
            self.lost += 1

    def _sent(self, entry: bytes) -> bool:
        try:
            # by address each time: what is bound there may be another socket than before
            self._socket.sendto(entry, self._path)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()


def encoded(fields: Iterator[tuple[str, str]]) -> bytes:
    """One entry of *fields* in journald's protocol."""
    parts = []
    for name, text in fields:
        value = text.encode("utf-8", "backslashreplace")
        if b"\n" in value:
            parts.append(b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(value)), value))
        else:
            parts.append(b"%s=%s\n" % (name.encode(), value))
    return b"".join(parts)


def _fields(record: logging.LogRecord, message: str) -> Iterator[tuple[str, str]]:
    yield "MESSAGE", _shortened(message)
    yield "PRIORITY", str(_priority(record.levelno))
    yield "SYSLOG_IDENTIFIER", IDENTIFIER
    yield "CODE_FILE", record.pathname
    yield "CODE_LINE", str(record.lineno)
    yield "CODE_FUNC", record.funcName or "?"
    for attribute, name in _EXTRAS:
        value = getattr(record, attribute, None)
        if value is not None:
            yield name, str(value)[:200]


def _lost(number: int) -> Iterator[tuple[str, str]]:
    yield "MESSAGE", f"{number} entries were lost: journald did not take them"
    yield "PRIORITY", "4"
    yield "SYSLOG_IDENTIFIER", IDENTIFIER


def _shortened(text: str) -> str:
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= MAX_MESSAGE:
        return text
    # of a message the beginning says most, of a traceback the end
    half = MAX_MESSAGE // 2
    begin, end = data[:half].decode("utf-8", "ignore"), data[-half:].decode("utf-8", "ignore")
    return f"{begin}\n… ({len(data)} bytes)\n{end}"


class _Lines(logging.Formatter):
    def __init__(self, *, prefixed: bool) -> None:
        super().__init__("%(message)s" if prefixed else "%(asctime)s %(levelname)s %(message)s")
        self._prefixed = prefixed

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not self._prefixed:
            return text
        return "\n".join(f"<{_priority(record.levelno)}>{line}" for line in text.splitlines())


def set_up(
    environment: Mapping[str, str] = os.environ,
    *,
    stream: TextIO | None = None,
    path: Path = SOCKET,
) -> None:
    """Send the log where whoever started the agent reads it.

    Where *stream* (standard error) is connected to the journal, records go to journald at *path*;
    else they are lines on it, with journald's priorities where something else reads it for systemd.
    """
    stream = stream or sys.stderr
    handler: logging.Handler
    if is_journal(environment, stream) and path.is_socket():
        handler = JournalHandler(path)
    else:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(_Lines(prefixed="JOURNAL_STREAM" in environment))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # asyncio warns of connections that fail: anybody could fill the disk
    logging.getLogger("asyncio").setLevel(logging.ERROR)


def is_journal(environment: Mapping[str, str], stream: TextIO) -> bool:
    """systemd connected *stream* to the journal: JOURNAL_STREAM names its device and inode.

    That the variable is there alone says nothing, for it is inherited by who was redirected
    elsewhere (systemd.exec(5)).
    """
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    with suppress(OSError, ValueError):
        found = os.fstat(stream.fileno())
        return (str(found.st_dev), str(found.st_ino)) == (device, inode)
    return False
