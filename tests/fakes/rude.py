"""A stand-in for servers that break off: it answers each request with bytes of the test's choosing.

Every manner in which HTTP can end is one of its answers: the bytes, then how the connection ends.
It reads a request to its end before it answers, unless the answer says otherwise.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

__all__ = ["Answer", "Rude"]

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """What one request gets.

    ``then``: ``keep`` the connection for the next request, ``close`` it, ``reset`` it (RST),
    ``hold`` it open and say nothing more. ``early``: answer after the head of the request, and
    leave its body unread. ``later`` is sent ``pause`` seconds after ``data``.
    """

    data: bytes = b""
    then: Literal["keep", "close", "reset", "hold"] = "close"
    early: bool = False
    pause: float = 0.0
    later: bytes = b""


class Rude:
    """A server on a port of its own; the answers are given in turn, the last one ever after.

    ``requests`` are the heads and bodies that it read, ``connections`` how many it accepted.
    """

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._answers: Sequence[Answer] = answers
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Rude:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while True:
                answer = self._next()
                request = _request(connection, whole=not answer.early)
                if not request:
                    return
                with self._lock:
                    self.requests.append(request)
                connection.sendall(answer.data)
                if answer.later or answer.pause:
                    time.sleep(answer.pause)
                    connection.sendall(answer.later)
                if answer.then == "hold":
                    self._over.wait()
                if answer.then == "reset":
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                if answer.then != "keep":
                    return

    def _next(self) -> Answer:
        with self._lock:
            return self._answers[min(len(self.requests), len(self._answers) - 1)]


def _request(connection: socket.socket, *, whole: bool) -> bytes:
    """The next request: its head, and with *whole* its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    found = LENGTH.search(head)
    while whole and not (len(body) >= int(found[1]) if found else body.endswith(b"0\r\n\r\n")):
        piece = connection.recv(65536)
        if not piece:
            return b""
        body += piece
    return head + b"\r\n\r\n" + body
