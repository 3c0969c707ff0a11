"""Datagrams on a Unix socket: a proxy of the host tells the agent of each request.

The proxy sends a datagram for each request and never waits for it: with nobody there, or with the
kernel's queue full (``net.unix.max_dgram_qlen`` messages, which systemd sets to 512), it drops the
line and serves on. So what is counted is for graphs, and nothing is decided by it.

The socket's mode has the owner's x. nginx sends only while it sees that (``if (-x …)``, the one
question of its that a socket can answer with yes): without it every request on a host whose agent
was stopped would be a line in nginx's error log. HAProxy says it once and goes on.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import stat
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from farrier_agent.collectors import CollectError

__all__ = ["BATCH", "LONG", "MAX_MESSAGE", "REST", "Book", "Datagrams", "DatagramsError"]

MAX_MESSAGE = 16384
"""Bytes of one message. A request's of nginx has 200, of HAProxy 500 and its path; nginx cuts an
error at 2048 and a little more, HAProxy a line at 8192."""
BATCH = 256
"""Messages that are read at once, about 2 ms of work; then others have their turn."""
REST = 0.02
"""Seconds between two looks at an emptied queue: a wake for each line took ten times the work. The
queue that systemd sets (512) is full after that at 25,000 lines a second."""
LONG = 128
"""Messages; one who rests with a shorter queue would lose lines."""
_CREDENTIALS = struct.Struct("=iII")
_ROOT = 0


class DatagramsError(CollectError):
    """What a proxy tells cannot be received; the message says why."""


class Book(Protocol):
    """Who counts the messages.

    ``lines`` are messages by what became of them, with ``refused`` and ``garbled`` among them.
    ``full`` is how often more were waiting than the kernel keeps, ``last_at`` when the last was
    read, in seconds since the epoch.
    """

    lines: dict[str, int]
    full: int
    last_at: float | None

    def take(self, message: bytes) -> None:
        """Count *message*, whatever it is. Never raises."""


class Datagrams:
    """Receives on the socket at *path* what *proxy* (its name, for people) tells, into *book*.

    Messages of others than *user*, as whom the proxy runs, and root are refused and counted.
    """

    def __init__(
        self,
        path: Path,
        book: Book,
        *,
        proxy: str,
        user: str,
        sysctl: Path = Path("/proc/sys/net/unix/max_dgram_qlen"),
    ) -> None:
        self._path = path
        self._book = book
        self._proxy = proxy
        self._user = user
        self._sysctl = sysctl
        self._socket: socket.socket | None = None
        self._file: tuple[int, int] | None = None
        self._allowed = frozenset({_ROOT})
        self._queue = 0
        self._in_a_row = 0
        self._rest: asyncio.TimerHandle | None = None

    def listen(self) -> None:
        """Begin to listen, and again where the socket's file was taken away.

        Raises :class:`DatagramsError` when that cannot be done.
        """
        if self._socket is None or self._file != _file(self._path):
            self._begin()

    def close(self) -> None:
        """Listen no more, and take the socket's file away: the proxy then tells nobody."""
        ours = self._file is not None and self._file == _file(self._path)
        self._let_go()
        if ours:
            with suppress(OSError):
                self._path.unlink()

    def _let_go(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
        self._socket = self._file = None

    def _begin(self) -> None:
        uid, gid = self._sender()
        self._let_go()
        try:
            one = _bound(self._path, gid)
        except OSError as error:
            raise DatagramsError(
                f"{self._proxy}'s requests: {self._path} cannot be made: {error.strerror or error};"
                f" next: ls -ld {self._path.parent} {self._path}"
            ) from error
        self._allowed = frozenset({_ROOT, uid})
        self._queue = _number(self._sysctl)
        self._in_a_row = 0
        self._socket, self._file = one, _file(self._path)
        asyncio.get_running_loop().add_reader(one, self._read, one)

    def _sender(self) -> tuple[int, int]:
        try:
            user = pwd.getpwnam(self._user)
        except KeyError:
            raise DatagramsError(
                f"{self._proxy}'s requests: there is no user {self._user!r}, as which"
                f" {self._proxy} was to run; next: getent passwd {self._user}"
            ) from None
        return user.pw_uid, user.pw_gid

    def _read(self, one: socket.socket) -> None:
        """Read what waits, a batch at the most: the loop calls again while there is more."""
        book, allowed = self._book, self._allowed
        space = socket.CMSG_SPACE(_CREDENTIALS.size)
        for _ in range(BATCH):
            try:
                message, extra, flags, _from = one.recvmsg(MAX_MESSAGE, space)
            except OSError:  # BlockingIOError; and no other keeps a datagram socket from its next
                self._pause(one)
                return
            book.last_at = time.time()
            self._in_a_row += 1
            if self._in_a_row == self._queue + 1:
                book.full += 1
            if _uid(extra) not in allowed:
                book.lines["refused"] += 1
            elif flags & socket.MSG_TRUNC:
                book.lines["garbled"] += 1
            else:
                book.take(message)

    def _pause(self, one: socket.socket) -> None:
        self._in_a_row = 0
        if self._queue < LONG:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(one)
        self._rest = loop.call_later(REST, loop.add_reader, one, self._read, one)


def _bound(path: Path, gid: int) -> socket.socket:
    """A datagram socket at *path* for those of group *gid*; it replaces the one there. OSError."""
    if path.exists() and not path.is_socket():
        raise OSError(f"{path} is there and is no socket")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        fresh.unlink(missing_ok=True)
        one.bind(str(fresh))
        try:
            os.chown(fresh, -1, gid)
            fresh.chmod(0o720)
        except PermissionError:
            # not of the proxy's group: then everybody may send, and who it was is looked at
            fresh.chmod(0o722)
        fresh.replace(path)
    except BaseException:
        one.close()
        with suppress(OSError):
            fresh.unlink()
        raise
    return one


def _file(path: Path) -> tuple[int, int] | None:
    """Which file is at *path*; None for none that is a socket."""
    try:
        seen = path.lstat()
    except OSError:
        return None
    return (seen.st_dev, seen.st_ino) if stat.S_ISSOCK(seen.st_mode) else None


def _number(path: Path) -> int:
    """The number in the file *path*; the kernel's default of 10 where it cannot be read."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 10


def _uid(extra: list[tuple[int, int, bytes]]) -> int | None:
    """The uid that the kernel says the sender has."""
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return int(_CREDENTIALS.unpack_from(data)[1])
    return None
