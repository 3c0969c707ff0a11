"""The records of replicas as files: ``<directory>/<replica>.json``, and a lock beside each.

Written by programs of two users (the agent's own, and root from systemd's ``ExecStop=``), either of
which may be killed at any moment. So a record is replaced as a whole; the lock is the kernel's and
ends with the process that holds it; and no link that stands in the directory is followed.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from farrier_agent.draining.record import SCHEMA, Record
from farrier_agent.durable import replace

__all__ = ["DEFAULT_DIRECTORY", "LockedError", "Store", "StoreError", "UnreadableError"]

DEFAULT_DIRECTORY = Path("/var/lib/farrier/replicas")
PATIENCE = 5.0
"""Seconds to wait for a lock. It is held for one file's writing; longer is a process that hangs."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MAX_SIZE = 256 * 1024


class StoreError(RuntimeError):
    """A record could not be read, locked or written; the message says which, why, and what next.

    .. code-block:: text

        StoreError
        +-- LockedError       another process holds the lock and does not give it back
        +-- UnreadableError   what stands in the file is no record that this program understands
    """


class LockedError(StoreError):
    """The lock of a replica was not to be had in time."""


class UnreadableError(StoreError):
    """The file is there, but it is not a record of this replica in this schema."""


class _Head(msgspec.Struct):
    schema: int
    replica: str


_head = msgspec.json.Decoder(_Head)
_record = msgspec.json.Decoder(Record)


class Store:
    """The records in *directory*. Between :meth:`locked` and its end nobody else writes one."""

    def __init__(self, directory: Path = DEFAULT_DIRECTORY, *, patience: float = PATIENCE) -> None:
        self._directory = directory
        self._patience = patience

    def path(self, replica: str) -> Path:
        """The file of *replica*. Raises ValueError for what cannot be a replica's name."""
        if not _NAME.fullmatch(replica):
            raise ValueError(f"{replica!r} cannot be the name of a replica")
        return self._directory / f"{replica}.json"

    @contextmanager
    def locked(self, replica: str) -> Iterator[None]:
        """Hold the lock of *replica*. Raises :class:`LockedError`, or StoreError without a file."""
        path = self.path(replica).with_suffix(".lock")
        try:
            # 0750: whoever may open the lock's file may hold the lock
            self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            # read-only is enough for flock(2), and root's file can be locked by the agent too
            handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"{path}: cannot be locked: {error.strerror}") from error
        try:
            self._wait_for(handle, path)
            yield
        finally:
            os.close(handle)

    def _wait_for(self, handle: int, path: Path) -> None:
        end = time.monotonic() + self._patience
        while not _locked(handle, path):
            if time.monotonic() > end:
                raise LockedError(
                    f"{path}: held by another process for {self._patience:g} s;"
                    f" next: fuser -v {path}"
                )
            time.sleep(0.02)

    def load(self, replica: str) -> Record | None:
        """The record of *replica*, None when there is none.

        Raises :class:`UnreadableError` for garbage and :class:`StoreError` when the file cannot be
        read at all.
        """
        path = self.path(replica)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from error
        try:
            with os.fdopen(handle, "rb") as file:
                data = file.read(_MAX_SIZE + 1)
        except OSError as error:
            raise UnreadableError(f"{path}: {error.strerror}") from error
        return _parse(data, replica, path)

    def save(self, record: Record, *, durable: bool = True) -> None:
        """Replace the record of its replica. Raises :class:`StoreError`; then the old one stands.

        *durable*: on the disk before this returns. A count that is written again in a second need
        not be.
        """
        path = self.path(record.replica)
        data = msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"
        try:
            replace(path, data, durable=durable)
        except OSError as error:
            raise StoreError(f"{path}: cannot be written: {error.strerror}") from error

    def set_aside(self, replica: str) -> Path:
        """Move a file that is no record out of the way, for a person to look at.

        Raises :class:`StoreError`.
        """
        path = self.path(replica)
        bad = path.with_suffix(".bad")
        try:
            path.replace(bad)
        except OSError as error:
            raise StoreError(f"{path}: cannot be moved to {bad}: {error.strerror}") from error
        return bad


def _locked(handle: int, path: Path) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StoreError(f"{path}: cannot be locked: {error.strerror}") from error
    return True


def _parse(data: bytes, replica: str, path: Path) -> Record:
    if len(data) > _MAX_SIZE:
        raise UnreadableError(f"{path}: larger than {_MAX_SIZE} bytes")
    try:
        head = _head.decode(data)
        if head.schema > SCHEMA:
            raise UnreadableError(
                f"{path}: schema {head.schema} is newer than this agent's ({SCHEMA})"
            )
        if head.replica != replica:
            raise UnreadableError(f"{path}: is about the replica {head.replica!r}")
        return _record.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableError(f"{path}: {error}") from error
