"""Files with secrets on the operator's machine: read only if nobody else can.

A secret never gets into a message.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["LONGEST", "PrivateFileError", "read_private", "read_secret"]

LONGEST = 4096
"""Bytes of a secret that is a line: URLs and keys are shorter."""


class PrivateFileError(ValueError):
    """The file cannot be used; the message says why and what to do, and holds nothing of it."""


def read_private(path: Path, holds: str) -> bytes:
    """The content of *path*, which *holds* says in words. Raises :class:`PrivateFileError`."""
    try:
        # O_NONBLOCK: a FIFO of that name must not hang the run before it is refused
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise PrivateFileError(f"{path}: {error.strerror}; it holds {holds}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise PrivateFileError(f"{path} is not a regular file")
        if status.st_mode & 0o077:
            raise PrivateFileError(
                f"{path} can be read or written by others (mode {status.st_mode & 0o777:04o}); "
                f"run: chmod 600 {path}"
            )
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def read_secret(path: Path, holds: str) -> str:
    """The one line of *path* without its line break. Raises :class:`PrivateFileError`."""
    content = read_private(path, holds)
    try:
        text = content.decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    if not text or len(text) > LONGEST or not text.isprintable() or " " in text:
        raise PrivateFileError(f"{path} has to hold one line without spaces: {holds}")
    return text
