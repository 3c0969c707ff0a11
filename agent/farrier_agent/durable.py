"""Replaces small files: a reader, or a power cut, finds the old one or the new one, whole."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["replace"]

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def replace(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Make *data* the content of *path*, by way of ``NAME.new`` beside it.

    *durable*: on the disk before this returns. Raises OSError; then the old file stands.
    """
    fresh = path.with_suffix(".new")
    try:
        fresh.unlink(missing_ok=True)  # of a process that was killed here
        with os.fdopen(os.open(fresh, _FLAGS, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask of who writes it
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        fresh.replace(path)
        if durable:
            _sync(path.parent)
    except OSError:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
