"""The keys of clients, from files that only their owner can read."""

from __future__ import annotations

from pathlib import Path

from farrier.load.endpoint import EndpointError, Key
from farrier.spec.keys import KeysError, read_keys
from farrier.spec.private import PrivateFileError, read_secret

__all__ = ["keys_of", "one_key"]

ONE = "one API key; make the file with: install -m 600 /dev/stdin FILE"


def one_key(path: Path) -> dict[str, Key]:
    """The key that *path* holds in its one line, by the file's name. Raises EndpointError."""
    try:
        return {path.stem: Key(read_secret(path, ONE))}
    except PrivateFileError as error:
        raise EndpointError(str(error)) from None


def keys_of(path: Path) -> dict[str, Key]:
    """The keys of a file such as the inventory's ``api_keys_file``. Raises EndpointError.

    An entry that holds only a hash cannot be used to ask, and is left out.
    """
    try:
        found = read_keys(path)
    except KeysError as error:
        raise EndpointError(str(error)) from None
    keys = {name: Key(one.key, one.models) for name, one in found.items() if one.key is not None}
    if not keys:
        raise EndpointError(f"{path} has hashes only: to ask, a key itself is needed")
    return keys
