"""What was done to this host, by whom and for which rollout: a line of JSON for each.

The file is read by people and by ``farrier audit``; nothing is decided by it, except that tokens
of leases stay greater than those that it names. It ends in at most two files of :data:`MOST` bytes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

__all__ = ["MOST", "AuditLine", "AuditLog"]

MOST = 8 * 1024 * 1024
"""Bytes after which a file is the old one, and the one that was old is gone."""
_TOLD = 2 * 1024 * 1024
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class AuditLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that was done, or asked for and refused.

    ``at`` is seconds since the epoch; ``by`` the user of this host who asked, as the kernel says,
    ``holder`` who that is and from where, as they say themselves. ``outcome`` begins with
    ``begun``, ``done``, ``refused`` or ``failed``; what takes long has a line at either end.
    """

    at: float
    by: str
    verb: str
    outcome: str
    holder: str | None = None
    replicas: tuple[str, ...] = ()
    rollout: str | None = None
    token: int | None = None
    reason: str | None = None


_line = msgspec.json.Decoder(AuditLine)


class AuditLog:
    """The lines in *directory*. May block."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "audit.jsonl"
        self._old = directory / "audit.1.jsonl"

    def write(self, line: AuditLine) -> None:
        """Append *line*; it is on the disk when this returns. Raises OSError."""
        data = msgspec.json.encode(line) + b"\n"
        self._path.parent.mkdir(mode=0o750, exist_ok=True)
        with suppress(FileNotFoundError):
            if self._path.stat().st_size + len(data) > MOST:
                self._path.replace(self._old)
        handle = os.open(self._path, _FLAGS, 0o640)
        try:
            if not _whole(self._path):
                data = b"\n" + data  # of one who lost power over its line
            os.write(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)

    def last(self, count: int) -> tuple[AuditLine, ...]:
        """The last *count* lines, oldest first, no more than one answer holds. Raises OSError."""
        found: deque[AuditLine] = deque(maxlen=count)
        for path in (self._old, self._path):
            found.extend(_lines(path, _TOLD))
        size = 0
        told: list[AuditLine] = []
        for line in reversed(found):
            size += len(msgspec.json.encode(line))
            if size > _TOLD:
                break
            told.append(line)
        return tuple(reversed(told))

    def highest_token(self) -> int:
        """The greatest token of all lines; 0 without one. Raises OSError."""
        tokens = (
            line.token or 0 for path in (self._old, self._path) for line in _lines(path, MOST)
        )
        return max(tokens, default=0)


def _whole(path: Path) -> bool:
    """The file ends with a line's end, or is empty."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return True
        file.seek(size - 1)
        return file.read(1) == b"\n"


def _lines(path: Path, most: int) -> Iterator[AuditLine]:
    """The lines in the last *most* bytes of *path*. What is none is passed over."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most))
            data = file.read(most)
    except FileNotFoundError:
        return
    for one in data.splitlines():
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            yield _line.decode(one)
