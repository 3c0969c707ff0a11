"""What ran on this host before it let go of its GPUs: kept until a rollout is done with it."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import msgspec

from farrier_agent.control.errors import ControlError
from farrier_agent.durable import replace
from farrier_agent.rollout.deed import NOTE

__all__ = ["ENGINE", "SERVICES", "Note", "NoteFile"]

SERVICES = (
    "nvidia-persistenced.service",
    "nvidia-fabricmanager.service",
    "nvlsm.service",
    "dcgm-exporter.service",
    "nvidia-dcgm-exporter.service",
    "nvidia-dcgm.service",
    "dcgm.service",
)
"""What of NVIDIA's holds GPUs, in the order in which it is stopped."""
ENGINE = re.compile(r"engine-[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.service")
"""What the units of engines are called."""
_MAX = 64 * 1024


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """The units that ran before ``deed``, in the order in which they were stopped.

    ``unloads``: the driver's modules may have been taken out of the kernel.
    """

    units: tuple[str, ...]
    deed: str
    unloads: bool = False
    rollout: str | None = None
    at: float = 0.0


_note = msgspec.json.Decoder(Note)


class NoteFile:
    """The note in *directory*. May block."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NOTE

    def units(self) -> tuple[str, ...]:
        """The units that are noted; of those only such as may be meant, whoever wrote them."""
        note = self.load()
        units = note.units if note else ()
        return tuple(one for one in units if one in SERVICES or ENGINE.fullmatch(one))

    def load(self) -> Note | None:
        """What is noted; None where nothing is. Raises ControlError."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(os.open(self._path, flags), "rb") as file:
                return _note.decode(file.read(_MAX))
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ControlError(
                f"{self._path}: what ran before cannot be read: {error}",
                f"rm {self._path}; then start those units by hand that are to run",
            ) from error

    def keep(
        self, units: tuple[str, ...], deed: str, rollout: str | None, *, unloads: bool = False
    ) -> None:
        """Note *units*, on the disk when this returns; what was unloaded stays noted.

        Raises ControlError.
        """
        before = self.load()
        note = Note(
            units=units,
            deed=deed,
            unloads=unloads or (before is not None and before.unloads),
            rollout=rollout,
            at=time.time(),
        )
        try:
            replace(self._path, msgspec.json.encode(note) + b"\n")
        except OSError as error:
            raise ControlError(
                f"nothing was stopped: {self._path}: {error.strerror}", f"df -h {self._path.parent}"
            ) from error
