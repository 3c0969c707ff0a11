"""The file of API keys on the operator's machine.

A key never gets into a message: a problem names the file, and an entry by its number, because a
name and its key may have been swapped.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from farrier.spec.check_model import is_label
from farrier.spec.private import PrivateFileError, read_private

__all__ = ["KeysError", "read_keys"]

EXAMPLE = '[keys], then lines such as alice = "…" (make a key with: openssl rand -hex 24)'

_KEY = re.compile(r"[A-Za-z0-9_-]{20,256}")
_AT = re.compile(r"\(at [^)]*\)")


class KeysError(ValueError):
    """The file cannot be used; the message says why and what to do, and holds no key."""


def read_keys(path: Path) -> dict[str, str]:
    """The keys of the TOML file *path*, by name. Raises :class:`KeysError`."""
    try:
        content = read_private(path, EXAMPLE)
    except PrivateFileError as error:
        raise KeysError(str(error)) from None
    return _parse(content, path)


def _parse(content: bytes, path: Path) -> dict[str, str]:
    try:
        data = tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise KeysError(f"{path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        at = _AT.search(str(error))  # the rest of the message may quote the file
        raise KeysError(f"{path} is not valid TOML {at[0] if at else ''}".rstrip()) from None
    keys = data.get("keys")
    if not isinstance(keys, dict) or not keys or set(data) != {"keys"}:
        raise KeysError(f"{path} has to hold one table and in it at least one key: {EXAMPLE}")
    seen: dict[str, int] = {}
    for number, (name, key) in enumerate(keys.items(), start=1):
        entry = f"{path}: entry {number} under [keys]"
        if not is_label(name):
            raise KeysError(f"{entry}: its name is no label such as alice or batch-jobs")
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise KeysError(
                f"{entry}: a key is 20 to 256 of the characters A-Z a-z 0-9 _ -; "
                "make one with: openssl rand -hex 24"
            )
        if key in seen:
            raise KeysError(f"{entry} has the same key as entry {seen[key]}; give each its own")
        seen[key] = number
    return dict(keys)
