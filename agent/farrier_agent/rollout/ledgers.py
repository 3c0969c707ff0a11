"""Copies of the ledgers that rollouts keep on their own side, so that another machine can resume.

The host reads none of them: they are JSON, and whoever put one knows what it says.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from farrier_agent.control.errors import ControlError, UsageError
from farrier_agent.control.protocol import LedgerCopy
from farrier_agent.control.requests import MAX_LEDGER
from farrier_agent.durable import replace

__all__ = ["MOST", "LedgerShelf"]

MOST = 50
"""Ledgers that are kept; the one that was not touched for longest goes."""


class LedgerShelf:
    """The ledgers in *directory*, made when the first one comes. May block.

    Names are those of rollouts, which begin with a letter or a digit and have no slash.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, name: str, content: bytes) -> LedgerCopy:
        """Keep *content* as *name*, on the disk when this returns. Raises ControlError."""
        try:
            msgspec.json.decode(content)
            content.decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(f"the ledger {name} is no JSON: {error}") from error
        try:
            self._directory.mkdir(mode=0o750, exist_ok=True)
            replace(self._path(name), content, mode=0o640)
        except OSError as error:
            raise ControlError(
                f"the ledger {name} cannot be kept: {error.strerror}", f"df -h {self._directory}"
            ) from error
        for old in self.all()[MOST:]:
            with suppress(OSError):
                self._path(old.id).unlink()
        return self._copy(name)

    def get(self, name: str) -> LedgerCopy:
        """The ledger *name*, with its content. Raises ControlError."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(self._path(name), flags), "rb") as file:
                content = file.read(MAX_LEDGER + 1)
                at = os.fstat(file.fileno()).st_mtime
            return LedgerCopy(id=name, size_bytes=len(content), at=at, content=content.decode())
        except FileNotFoundError:
            raise ControlError(
                f"this host has no ledger {name}", "farrier-agent ledger list"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ControlError(
                f"the ledger {name} cannot be read: {error}", f"ls -l {self._directory}"
            ) from error

    def all(self) -> tuple[LedgerCopy, ...]:
        """Which there are, the newest first, without their content. Raises ControlError."""
        try:
            names = [one.stem for one in self._directory.glob("*.json")]
        except OSError as error:
            raise ControlError(f"{self._directory}: {error.strerror}") from error
        found: list[LedgerCopy] = []
        for name in names:
            with suppress(ControlError):  # gone meanwhile
                found.append(self._copy(name))
        return tuple(sorted(found, key=lambda one: (-one.at, one.id)))

    def _copy(self, name: str) -> LedgerCopy:
        try:
            found = self._path(name).stat()
        except OSError as error:
            raise ControlError(f"the ledger {name} cannot be read: {error.strerror}") from error
        return LedgerCopy(id=name, size_bytes=found.st_size, at=found.st_mtime)

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"
