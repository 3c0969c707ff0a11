"""Until when NVML is let go of: a restart of the agent must not open a driver that is exchanged."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from farrier_agent.durable import replace
from farrier_agent.serving.worker import Worker

__all__ = ["Release"]

log = logging.getLogger("farrier-agent")


class Release:
    """The moment, in seconds since the epoch, in the file *path*, which no reboot outlives."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._worker = Worker("release")

    async def keep(self, until: float | None) -> None:
        """Remember *until*; None: NVML is read. What cannot be kept is said, and no more."""
        try:
            await self._worker.do(lambda: self._write(until))
        except OSError as error:
            log.warning(
                "%s: %s: a restart of the agent takes NVML up at once", self._path, error.strerror
            )

    async def left(self) -> float:
        """For how many seconds it is still let go of; 0 where it is not."""
        return await self._worker.do(self._left)

    def _write(self, until: float | None) -> None:
        if until is None:
            self._path.unlink(missing_ok=True)
        else:
            replace(self._path, msgspec.json.encode(until), durable=False)

    def _left(self) -> float:
        with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
            until = msgspec.json.decode(self._path.read_bytes(), type=float)
            return min(86400.0, max(0.0, until - time.time()))
        return 0.0
