"""nginx's requests to an engine, as the kernel shows them: connections that belong to its user.

The agent asks the engine from its own user, so in these tests nginx has to have another one. That
of a socket can be changed by root alone: fchown(2).
"""

from __future__ import annotations

import json
import os
import pwd
import socket
import threading
from contextlib import suppress
from typing import Any

UID = 65534
USER = pwd.getpwuid(UID).pw_name
PATIENCE = 60.0


class Stream:
    """A stream that nginx passes on to the engine on *port*: read in the background to its end."""

    def __init__(self, port: int, name: str, tokens: int) -> None:
        self.name = name
        self.answer = b""
        self.begun = threading.Event()
        self._connection = connect(port)
        body = {"model": "tiny", "messages": [], "max_tokens": tokens, "stream": True}
        data = json.dumps(body).encode()
        self._connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n"
            b"X-Request-Id: %s\r\nContent-Length: %d\r\n\r\n%s" % (name.encode(), len(data), data)
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self.begun.wait(PATIENCE), f"{name}: no first token"

    def _read(self) -> None:
        with suppress(OSError):
            while data := self._connection.recv(65536):
                self.answer += data
                if b"data: " in self.answer:
                    self.begun.set()
        self.begun.set()
        self._connection.close()

    @property
    def whole(self) -> bool:
        """Wait for its end: whether it ended as it should."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), f"{self.name}: no end"
        return b"data: [DONE]" in self.answer

    def close(self) -> None:
        """Go away in the middle, as a client may."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)


def connect(port: int, uid: int = UID) -> socket.socket:
    """A connection to the engine on *port* that belongs to *uid*."""
    one = socket.socket()
    try:
        os.fchown(one.fileno(), uid, -1)
        one.settimeout(PATIENCE)
        one.connect(("127.0.0.1", port))
    except BaseException:
        one.close()
        raise
    return one


class Nginx:
    """Everything that nginx has under way; ``close`` ends it."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []
        self._streams: list[Stream] = []

    def hold(self, port: int, count: int, uid: int = UID) -> None:
        """So many requests more that get nowhere until they are let go."""
        self._held += [connect(port, uid) for _ in range(count)]

    def let_go(self, count: int | None = None) -> None:
        """End so many of the held requests, or all."""
        count = len(self._held) if count is None else count
        for one in self._held[:count]:
            one.close()
        del self._held[:count]

    def stream(self, port: int, count: int = 1, *, tokens: int = 100) -> list[Stream]:
        """So many streams, each of which has begun."""
        first = len(self._streams)
        fresh = [Stream(port, f"stream-{first + number}", tokens) for number in range(count)]
        self._streams += fresh
        return fresh

    def close(self) -> None:
        self.let_go()
        for one in self._streams:
            one.close()

    def __enter__(self) -> Nginx:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
