"""A small file of the agent's own that a source remembers things in. Nobody waits for the disk."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from farrier_agent.collectors.blocking import BlockedError, Blocking
from farrier_agent.durable import replace

__all__ = ["Memory", "decoder", "load"]

log = logging.getLogger("farrier-agent")

T = TypeVar("T")
SCHEMA = 1
MAX_SIZE = 4 * 1024 * 1024


class _File(msgspec.Struct, Generic[T]):
    schema: int
    kept: T


def decoder(kind: type[T]) -> msgspec.json.Decoder[_File[T]]:
    """What reads a file of *kind*. For a module's own level: see docs/architecture.md, msgspec."""
    return msgspec.json.Decoder(_File[kind])  # type: ignore[valid-type]


def load(path: Path, file_of: msgspec.json.Decoder[_File[T]]) -> T | None:
    """What *path* has, None when it is not there or of no use, which is logged. May block.

    Raises OSError when it is there and cannot be read: then nothing may be written over it.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "rb") as file:
        data = file.read(MAX_SIZE + 1)
    try:
        if len(data) > MAX_SIZE:
            raise ValueError(f"larger than {MAX_SIZE} bytes")
        found = file_of.decode(data)
        if found.schema != SCHEMA:
            raise ValueError(f"schema {found.schema} is not this agent's ({SCHEMA})")
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        log.warning("%s: begun anew, for it is of no use: %s", path, error)
        return None
    value: T = found.kept
    return value


class Memory(Generic[T]):
    """Keeps the newest value in the file *path*, written at most *every* so many seconds.

    A writer that is killed leaves the old file or the new one, whole.
    """

    def __init__(self, path: Path, *, every: float = 10.0) -> None:
        self.problem: str | None = None
        """Why the newest value is not on the disk; None when it is, or soon will be."""
        self._path = path
        self._every = every
        self._thread = Blocking(path.stem)
        self._wanted: T | None = None
        self._writing: asyncio.Task[None] | None = None
        self._next = 0.0

    def keep(self, value: T) -> None:
        """Have *value* written, now or when it is time. Does not wait."""
        self._wanted = value
        self.go_on()

    def go_on(self) -> None:
        """Write what is due. To be called now and then."""
        busy = self._writing is not None and not self._writing.done()
        if self._wanted is None or busy or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every
        value, self._wanted = self._wanted, None
        self._writing = asyncio.create_task(self._write(value, deadline=60.0))

    async def close(self, deadline: float = 2.0) -> None:
        """Write what is left, within *deadline* seconds."""
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=deadline)
        if self._wanted is not None:
            value, self._wanted = self._wanted, None
            await self._write(value, deadline)

    async def _write(self, value: T, deadline: float) -> None:
        problem = None
        try:
            await self._thread.run(partial(_save, self._path, value), deadline)
        except BlockedError as error:
            problem = f"{self._path} cannot be written: the disk hangs: {error}"
        except OSError as error:
            problem = f"{self._path} cannot be written: {error.strerror}"
        if problem is not None and self._wanted is None:
            self._wanted = value  # tried again
        if problem is not None and self.problem is None:
            log.warning("%s; what the agent learns now, its next start will not know", problem)
        self.problem = problem


def _save(path: Path, value: object) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    replace(path, msgspec.json.encode({"schema": SCHEMA, "kept": value}), mode=0o640)
