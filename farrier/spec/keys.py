"""The file of API keys on the operator's machine.

A key never gets into a message: a problem names the file, and an entry by its number, because a
name and its key may have been swapped.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farrier.spec.check_model import did_you_mean, is_label, is_served_name, is_whole
from farrier.spec.private import PrivateFileError, read_private

__all__ = ["ApiKey", "KeysError", "read_keys"]

EXAMPLE = '[keys], then lines such as alice = "…" (make a key with: openssl rand -hex 24)'
FIELDS = ("key", "sha256", "models", "requests_per_minute", "streams")
MOST_PER_MINUTE = 1_000_000
MOST_STREAMS = 65_535

_KEY = re.compile(r"[A-Za-z0-9_-]{20,256}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_AT = re.compile(r"\(at [^)]*\)")


class KeysError(ValueError):
    """The file cannot be used; the message says why and what to do, and holds no key."""


@dataclass(frozen=True)
class ApiKey:
    """A client's key, and what its client may do.

    ``sha256`` is the key's SHA-256 in 64 lower-case hexadecimal digits; ``key`` is the key itself,
    None where the operator's file holds only the hash. ``models`` are the served names that it may
    use, None for all of them. ``requests_per_minute`` and ``streams`` (requests at once, whatever
    they ask for) are None for no limit.
    """

    name: str
    sha256: str
    key: str | None = field(default=None, repr=False)
    models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    streams: int | None = None

    @classmethod
    def of(cls, name: str, key: str, **limits: Any) -> ApiKey:
        """The entry of a *key* that is known itself."""
        return cls(name, _sha256(key), key, **limits)

    def may_use(self, model: str) -> bool:
        """Whether its client may use *model*, a served name."""
        return self.models is None or model in self.models


def read_keys(path: Path) -> dict[str, ApiKey]:
    """The keys of the TOML file *path*, by name. Raises :class:`KeysError`."""
    try:
        content = read_private(path, EXAMPLE)
    except PrivateFileError as error:
        raise KeysError(str(error)) from None
    return _parse(content, path)


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _parse(content: bytes, path: Path) -> dict[str, ApiKey]:
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
    entries: dict[str, ApiKey] = {}
    for number, (name, given) in enumerate(keys.items(), start=1):
        entry = f"{path}: entry {number} under [keys]"
        if not is_label(name):
            raise KeysError(f"{entry}: its name is no label such as alice or batch-jobs")
        key = _entry(name, given if isinstance(given, dict) else {"key": given}, entry)
        if same := _index(entries.values(), key.sha256):
            raise KeysError(f"{entry} has the same key as entry {same}; give each its own")
        entries[name] = key
    return entries


def _index(keys: Iterable[ApiKey], sha256: str) -> int:
    """The number of the entry with that hash; 0 without one."""
    return next((number for number, key in enumerate(keys, 1) if key.sha256 == sha256), 0)


def _entry(name: str, given: Mapping[str, Any], entry: str) -> ApiKey:
    for said in given:
        if said not in FIELDS:  # not shown: it may be a key
            hint = did_you_mean(said, FIELDS)
            raise KeysError(f"{entry}: a field is none of {', '.join(FIELDS)}{hint}")
    if ("key" in given) == ("sha256" in given):
        raise KeysError(
            f"{entry} has to have either key = '…' or sha256 = '…' (the key's SHA-256), "
            f"{'not both' if 'key' in given else 'and has neither'}"
        )
    models = _models(given, entry)
    rate = _limit(given, "requests_per_minute", MOST_PER_MINUTE, entry)
    streams = _limit(given, "streams", MOST_STREAMS, entry)
    if "sha256" in given:
        digest = given["sha256"]
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise KeysError(
                f"{entry}: sha256 is 64 hexadecimal digits; make them from a file that holds the "
                "key with: tr -d '\\n' < FILE | sha256sum"
            )
        return ApiKey(name, digest.lower(), None, models, rate, streams)
    key = given["key"]
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise KeysError(
            f"{entry}: a key is 20 to 256 of the characters A-Z a-z 0-9 _ -; "
            "make one with: openssl rand -hex 24"
        )
    return ApiKey(name, _sha256(key), key, models, rate, streams)


def _models(given: Mapping[str, Any], entry: str) -> tuple[str, ...] | None:
    if "models" not in given:
        return None
    models = given["models"]
    if not isinstance(models, list) or not models or not all(map(is_served_name, models)):
        raise KeysError(
            f"{entry}: models is a list of at least one served name, such as ['qwen3-8b']; "
            "leave it out where the key may use every model"
        )
    return tuple(dict.fromkeys(models))


def _limit(given: Mapping[str, Any], name: str, most: int, entry: str) -> int | None:
    if name not in given:
        return None
    limit = given[name]
    if not is_whole(limit) or not 1 <= limit <= most:
        raise KeysError(
            f"{entry}: {name} is a whole number from 1 to {most}; leave it out for no limit"
        )
    return int(limit)
