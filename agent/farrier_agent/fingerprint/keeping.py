"""Keeps the recorded fingerprint of a host in a file; it outlives restarts and reboots."""

from __future__ import annotations

from pathlib import Path

import msgspec

from farrier_agent.durable import replace
from farrier_agent.fingerprint.made import SCHEMA, Fingerprint

__all__ = ["FingerprintFile", "FingerprintFileError"]

_fingerprint = msgspec.json.Decoder(Fingerprint)
_MOST = 1 << 20


class FingerprintFileError(RuntimeError):
    """What is kept cannot be read or written; the message says which file and why."""


class FingerprintFile:
    """The file at *path*. May block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Fingerprint | None:
        """What was recorded; None before. Raises FingerprintFileError."""
        try:
            with self._path.open("rb") as file:
                data = file.read(_MOST)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FingerprintFileError(f"{self._path}: {error.strerror}") from error
        try:
            found = _fingerprint.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FingerprintFileError(f"{self._path}: not a fingerprint: {error}") from error
        if found.schema > SCHEMA:
            raise FingerprintFileError(
                f"{self._path}: schema {found.schema} is newer than this agent's ({SCHEMA})"
            )
        return found

    def save(self, one: Fingerprint) -> None:
        """Keep *one* instead. Raises FingerprintFileError."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace(self._path, msgspec.json.encode(one) + b"\n")
        except OSError as error:
            raise FingerprintFileError(f"{self._path}: {error.strerror}") from error
