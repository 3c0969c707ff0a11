"""Ledgers on the operator's machine: ``.farrier/rollouts/<id>.json``, and who works on which.

Written atomically and to the disk, and never by two processes: whoever drives a rollout holds a
lock on ``<id>.lock``. To ask that process to stop, ``<id>.abort`` is made.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farrier_agent import durable

from farrier.rollout.errors import RefusedError, RolloutError
from farrier.rollout.ledger import Ledger, LedgerError, decode, encode

__all__ = ["DIRECTORY", "Store", "new_id"]

DIRECTORY = Path(".farrier/rollouts")
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that looks like another


def new_id(now: float) -> str:
    """A rollout's ID: ``r-20261122-0110-x7``, in UTC, with two letters by chance."""
    when = time.strftime("%Y%m%d-%H%M", time.gmtime(now))
    return f"r-{when}-{''.join(secrets.choice(_LETTERS) for _ in range(2))}"


class Store:
    """The ledgers in *directory*."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self.directory = directory

    def path(self, rollout: str) -> Path:
        """Where the ledger of *rollout* is."""
        return self.directory / f"{rollout}.json"

    def save(self, ledger: Ledger) -> None:
        """Write *ledger*, on the disk when this returns. Raises RolloutError."""
        path = self.path(ledger.id)
        try:
            durable.replace(path, encode(ledger), mode=0o600)
        except OSError as error:
            raise RolloutError(
                f"{path}: cannot be written: {error.strerror}; without its ledger no step is done",
                f"ls -ld {self.directory.absolute()}",
            ) from error

    def load(self, rollout: str) -> Ledger | None:
        """The ledger of *rollout*, None when there is none here. Raises LedgerError."""
        path = self.path(rollout)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LedgerError(f"{path}: {error.strerror}") from error
        return decode(data, str(path))

    def all(self) -> list[Ledger]:
        """Every ledger that can be read, the newest first."""
        found = []
        for path in self.directory.glob("r-*.json"):
            try:
                found.append(decode(path.read_bytes(), str(path)))
            except (OSError, LedgerError):
                continue  # somebody else's file, or one that is being removed
        return sorted(found, key=lambda one: (one.planned_at, one.id), reverse=True)

    @contextmanager
    def driving(self, rollout: str) -> Iterator[None]:
        """Be the one process on this machine that drives *rollout*. Raises RefusedError."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.directory / f"{rollout}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise RolloutError(
                f"{self.directory}: cannot be written: {error.strerror}",
                "run it in a directory of your own",
            ) from error
        try:
            if not _locked(handle):
                raise RefusedError(
                    f"{rollout}: another process on this machine drives it",
                    f"farrier rollout show {rollout}",
                )
            self._abort_file(rollout).unlink(missing_ok=True)
            yield
        finally:
            os.close(handle)

    def is_driven(self, rollout: str) -> bool:
        """Some process of this machine drives *rollout* in this directory."""
        try:
            handle = os.open(self.directory / f"{rollout}.lock", os.O_RDWR)
        except OSError:
            return False
        try:
            return not _locked(handle)
        finally:
            os.close(handle)

    def ask_to_abort(self, rollout: str) -> None:
        """Tell the process that drives *rollout* to stop after its present step."""
        self._abort_file(rollout).touch()

    def abort_asked(self, rollout: str) -> bool:
        """Somebody asked for that."""
        return self._abort_file(rollout).exists()

    def _abort_file(self, rollout: str) -> Path:
        return self.directory / f"{rollout}.abort"


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
