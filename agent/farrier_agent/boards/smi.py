"""NVIDIA's programs: found where only root may have put them, and what nvidia-smi says of GPUs."""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path

__all__ = ["UnsafeError", "program", "sections"]


class UnsafeError(Exception):
    """A program is not there, or others than root could have written it; the message says which."""


def program(name: str) -> str:
    """The path of the program *name* on PATH, which root is about to run. Raises UnsafeError.

    Neither it nor the directory that it is in may be writable for others, or be anybody else's.
    """
    found = shutil.which(name)
    if found is None:
        raise UnsafeError(f"{name} is not on this host")
    path = Path(found).resolve()
    for one in (path, path.parent):
        state = one.stat()
        if state.st_uid not in {0, os.geteuid()} or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UnsafeError(f"{one} could have been written by others than root: it is not run")
    # not the resolved path: some programs go by the name that they are called by
    return str(Path(found).absolute())


_GPU = re.compile(r"GPU [0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]$")
_FIELD = re.compile(r"    (\S[^:]*?)\s*: (.*)$")
_ABSENT = frozenset(("", "N/A", "[N/A]", "Unknown Error", "[Unknown Error]"))


def sections(text: str) -> dict[str, dict[str, str]]:
    """What ``nvidia-smi -q`` says of each GPU, by its UUID: the fields of the first level. Pure.

    A field that is ``N/A`` is absent.
    """
    found: dict[str, dict[str, str]] = {}
    fields: dict[str, str] | None = None
    for line in text.splitlines():
        if _GPU.match(line.rstrip()):
            fields = {}
        elif fields is not None and (match := _FIELD.match(line)):
            name, value = match[1], match[2].strip()
            if value not in _ABSENT:
                fields.setdefault(name, value)
                if name == "GPU UUID":
                    found[value] = fields
    return found
