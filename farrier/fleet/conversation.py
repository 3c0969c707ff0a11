"""One command on one SSH channel, from its sending to its end, within a time."""

from __future__ import annotations

import codecs
import select
import time
from collections.abc import Callable
from typing import Any

__all__ = ["QUIET", "Hear", "Lines", "converse"]

Hear = Callable[[str], None]

QUIET = 30.0
"""Seconds without a word after which the other side is asked whether it lives."""

_CHUNK = 64 * 1024


class Lines:
    """Bytes of one stream, as text: kept, or handed to *hear* line by line."""

    def __init__(self, hear: Hear | None = None) -> None:
        self._hear = hear
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text: list[str] = []

    def take(self, data: bytes) -> None:
        """More of the stream."""
        self._took(self._decoder.decode(data))

    def end(self) -> str:
        """The stream is over: what was kept; a last line without its end is handed out now."""
        self._took(self._decoder.decode(b"", final=True))
        rest = "".join(self._text)
        if self._hear is None:
            return rest
        if rest:
            self._hear(rest)
        return ""

    def _took(self, text: str) -> None:
        if self._hear is None or "\n" not in text:
            self._text.append(text)
            return
        *lines, rest = ("".join(self._text) + text).split("\n")
        self._text = [rest] if rest else []
        for line in lines:
            self._hear(line.removesuffix("\r"))


class _Time:
    """What is left of so many seconds; None is without end."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds, more than 0. Raises :class:`TimeoutError`."""
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def converse(
    channel: Any,
    command: str,
    streams: tuple[Lines, Lines],
    *,
    stdin: bytes | None = None,
    timeout: float | None = None,
    quiet: float = QUIET,
    alive: Callable[[], object] = lambda: None,
) -> int:
    """Send *command* and *stdin*, read both *streams* to their ends; its exit code.

    Without *stdin* (None) its input stays open as long as the channel. The exit code is -1 where
    there is none: a signal ended it, or the connection broke. Raises
    :class:`TimeoutError` after *timeout* seconds, and what paramiko raises. Whenever nothing was
    heard for *quiet* seconds, *alive* is called: it raises if the other side is gone.
    """
    time_for_it = _Time(timeout)
    channel.settimeout(time_for_it.left())
    channel.exec_command(command)
    if stdin is not None:
        channel.sendall(stdin)
        channel.shutdown_write()
    _read(channel, time_for_it, streams, quiet, alive)
    if not channel.status_event.wait(time_for_it.left()):
        raise TimeoutError
    return int(channel.recv_exit_status())


def _read(
    channel: Any,
    time_for_it: _Time,
    streams: tuple[Lines, Lines],
    quiet: float,
    alive: Callable[[], object],
) -> None:
    out, err = streams
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    while True:
        left = time_for_it.left()
        heard = poll.poll(min(quiet, quiet if left is None else left) * 1000)
        if not heard:
            time_for_it.left()
            alive()
        ended = channel.eof_received or channel.closed  # before reading: nothing comes after it
        while channel.recv_ready():
            out.take(channel.recv(_CHUNK))
        while channel.recv_stderr_ready():
            err.take(channel.recv_stderr(_CHUNK))
        if ended:
            return
