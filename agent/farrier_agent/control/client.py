"""A program's end of the control socket: blocking, and no longer than it is told to be."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast, get_args

from farrier_agent.control import protocol
from farrier_agent.control.errors import (
    ControlError,
    LostError,
    NoAgentError,
    ProtocolError,
    RefusedError,
)
from farrier_agent.control.listening import DEFAULT_PATH
from farrier_agent.control.protocol import Entry, Final, News, Progress, Request

__all__ = ["ask"]

_CHUNK = 64 * 1024
_FINAL = get_args(Final)


def _ignore(news: News) -> None:
    """Nobody wants to hear it."""


def ask(
    request: Request,
    *,
    path: Path = DEFAULT_PATH,
    hear: Callable[[News], None] = _ignore,
    answer_within: float = 2.0,
    silence: float = 4 * protocol.BEAT,
    content: bytes = b"",
) -> Final:
    """Ask the agent at *path* for *request*, hand its news to *hear*, return its last word.

    *content* is what follows the request.

    The agent has *answer_within* seconds to accept the request, and is never silent for longer
    than *silence* seconds after that, however long the whole takes. Raises NoAgentError before it
    accepted, LostError after it, ProtocolError for what is not the protocol, RefusedError where
    the socket is not for this user.
    """
    accepted = False

    def broken(reason: OSError | str) -> ControlError:
        return _lost(reason) if accepted else _none(path, reason)

    with _connect(path, answer_within) as connection:
        lines = _lines(connection)
        # who is not let in, or asks for too much, is told so before all of it was read
        with suppress(BrokenPipeError, ConnectionResetError):
            _send(connection, path, protocol.encode(request) + content)
        while True:
            try:
                line = next(lines, None)
            except OSError as error:
                raise broken(error) from error
            if line is None:
                raise broken("it closed the connection")
            reply = protocol.decode_reply(line)
            if isinstance(reply, _FINAL):
                return cast("Final", reply)
            accepted = True
            connection.settimeout(silence)
            if isinstance(reply, (Progress, Entry)):
                hear(reply)


def _connect(path: Path, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A blocking connect, bounded by the kernel: with a timeout of Python's it would fail at
        # once with EAGAIN while the agent's queue of connections is full (unix(7)).
        seconds, rest = divmod(timeout, 1)
        bound = struct.pack("@ll", int(seconds), int(rest * 1_000_000))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)
        connection.connect(str(path))
        connection.settimeout(timeout)
    except PermissionError as error:
        connection.close()
        raise RefusedError(
            f"{path} is for root and for the members of its group, of whom you are none",
            "the same with sudo",
        ) from error
    except OSError as error:
        connection.close()
        raise _none(path, error) from error
    return connection


def _send(connection: socket.socket, path: Path, line: bytes) -> None:
    try:
        connection.sendall(line)
    except TimeoutError as error:
        raise _none(path, error) from error


def _lines(connection: socket.socket) -> Iterator[bytes]:
    heard = bytearray()
    while data := connection.recv(_CHUNK):
        begin = len(heard)
        heard += data
        while (end := heard.find(b"\n", begin)) >= 0:
            line = bytes(heard[:end])
            del heard[: end + 1]
            begin = 0
            yield line
        if len(heard) > protocol.MAX_REPLY:
            raise ProtocolError(f"the agent sent a line of more than {protocol.MAX_REPLY} bytes")


def _why(reason: OSError | str) -> str:
    if isinstance(reason, (TimeoutError, BlockingIOError)):
        return "no answer in time"
    return reason if isinstance(reason, str) else reason.strerror or str(reason)


def _none(path: Path, reason: OSError | str) -> NoAgentError:
    return NoAgentError(
        f"the agent does not answer on {path}: {_why(reason)}", "systemctl status farrier-agent"
    )


def _lost(reason: OSError | str) -> LostError:
    return LostError(
        f"the agent fell silent: {_why(reason)}; what it began it carries on when it is back",
        "farrier-agent status",
    )
