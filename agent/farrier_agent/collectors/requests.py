"""What the host's nginx saw of its requests, from a Unix socket that it writes its log to.

nginx sends a datagram for each request and never waits for it: with nobody there, or with the
kernel's queue full (``net.unix.max_dgram_qlen`` messages, which systemd sets to 512), it drops the
line and serves on. So these counts are for graphs, and nothing is decided by them.

The socket's mode has the owner's x. nginx sends only while it sees that (``if (-x …)``, the one
question of its that a socket can answer with yes): without it every request on a host whose agent
was stopped would be a line in nginx's error log.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import stat
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from farrier_agent.collectors import CollectError
from farrier_agent.collectors.requests_log import (
    Histogram,
    ReplicaRequests,
    RequestCounts,
    Tally,
)

__all__ = ["Histogram", "ReplicaRequests", "RequestCounts", "RequestLog", "RequestsError"]

MAX_MESSAGE = 4096
"""Bytes of one message. A request's has 200; nginx cuts an error at 2048 and a little more."""
BATCH = 256
"""Messages that are read at once, about 2 ms of work; then others have their turn."""
REST = 0.02
"""Seconds between two looks at an emptied queue: a wake for each line took ten times the work. The
queue that systemd sets (512) is full after that at 25,000 lines a second."""
LONG = 128
"""Messages; one who rests with a shorter queue would lose lines."""
_CREDENTIALS = struct.Struct("=iII")
_ROOT = 0


class RequestsError(CollectError):
    """nginx's requests cannot be received; the message says why."""


class RequestLog:
    """Receives what nginx tells on the socket at *path*, and counts it.

    Messages of others than *nginx_user* and root are refused and counted. One object lives as long
    as the process: its counts outlive a reading of the configuration, after which :meth:`serve` is
    told the replicas.
    """

    def __init__(
        self,
        path: Path,
        nginx_user: str,
        models: Mapping[str, str],
        *,
        sysctl: Path = Path("/proc/sys/net/unix/max_dgram_qlen"),
    ) -> None:
        self._path = path
        self._nginx_user = nginx_user
        self._sysctl = sysctl
        self._tally = Tally(models)
        self._socket: socket.socket | None = None
        self._file: tuple[int, int] | None = None
        self._allowed = frozenset({_ROOT})
        self._queue = 0
        self._in_a_row = 0
        self._rest: asyncio.TimerHandle | None = None

    def serve(self, models: Mapping[str, str]) -> None:
        """Count for the replicas of *models* (model by replica) from now on."""
        self._tally.serve(models)

    async def collect(self, deadline: float) -> RequestCounts:  # noqa: ARG002 - it never waits
        """The counts now. Begins to listen, and again where the socket's file was taken away.

        Raises :class:`RequestsError` when that cannot be done.
        """
        if self._socket is None or self._file != _file(self._path):
            self._listen()
        return self._tally.shown()

    def close(self) -> None:
        """Listen no more, and take the socket's file away: nginx then tells nobody."""
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

    def _listen(self) -> None:
        uid, gid = self._nginx()
        self._let_go()
        try:
            one = _bound(self._path, gid)
        except OSError as error:
            raise RequestsError(
                f"nginx's requests: {self._path} cannot be made: {error.strerror or error};"
                f" next: ls -ld {self._path.parent} {self._path}"
            ) from error
        self._allowed = frozenset({_ROOT, uid})
        self._queue = _number(self._sysctl)
        self._in_a_row = 0
        self._socket, self._file = one, _file(self._path)
        asyncio.get_running_loop().add_reader(one, self._read, one)

    def _nginx(self) -> tuple[int, int]:
        try:
            user = pwd.getpwnam(self._nginx_user)
        except KeyError:
            raise RequestsError(
                f"nginx's requests: there is no user {self._nginx_user!r}, as which nginx was to"
                f" run; next: getent passwd {self._nginx_user}"
            ) from None
        return user.pw_uid, user.pw_gid

    def _read(self, one: socket.socket) -> None:
        """Read what waits, a batch at the most: the loop calls again while there is more."""
        tally, allowed = self._tally, self._allowed
        space = socket.CMSG_SPACE(_CREDENTIALS.size)
        for _ in range(BATCH):
            try:
                message, extra, flags, _from = one.recvmsg(MAX_MESSAGE, space)
            except OSError:  # BlockingIOError; and no other keeps a datagram socket from its next
                self._pause(one)
                return
            tally.last_at = time.time()
            self._in_a_row += 1
            if self._in_a_row == self._queue + 1:
                tally.full += 1
            if _uid(extra) not in allowed:
                tally.lines["refused"] += 1
            elif flags & socket.MSG_TRUNC:
                tally.lines["garbled"] += 1
            else:
                tally.take(message)

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
            # not a member of nginx's group: then everybody may send, and who it was is looked at
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
