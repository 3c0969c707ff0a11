"""The gates of the replicas: when one may be opened (pure), and the files that they are.

``<gate_dir>/<replica>`` exists = open. The unit closes its gate when it starts and when it stops;
the agent opens it once per run of the unit, so that a gate which an operator closed by hand stays
closed until the engine starts again. Which run a gate was opened for is kept in a file, for the
agent itself may be restarted.
"""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Literal

import msgspec

from farrier_agent.status import Unit

__all__ = ["Gates", "Opened", "Step", "decide"]


class Opened(msgspec.Struct, frozen=True):
    """How far the opening of a gate came, for which run of a unit.

    ``begun``: it is about to be opened; ``opened``: the file was made; ``confirmed``: the unit was
    seen in the same run after that.
    """

    invocation_id: str
    main_pid: int | None = None
    stage: Literal["begun", "opened", "confirmed"] = "begun"

    def is_for(self, unit: Unit) -> bool:
        """It was opened for the run that *unit* is in now."""
        return (self.invocation_id, self.main_pid) == (unit.invocation_id, unit.main_pid)


class Step(Enum):
    """What is to be done with a gate."""

    LEAVE = "leave"
    OPEN = "open"
    CONFIRM = "confirm"
    ADOPT = "adopt"
    CLOSE_AGAIN = "close again"


def decide(unit: Unit, *, answering: bool, gate_open: bool, opened: Opened | None) -> Step:
    """The one next step for a gate.

    Between the engine's answer and the opening of its gate the engine may crash: then the unit has
    closed the gate *before* the agent opens it. So an opening counts only once the unit was read
    again and is still in the same run (CONFIRM); otherwise the agent takes its own opening back
    (CLOSE_AGAIN). That is the only gate that it ever closes.
    """
    if opened and opened.stage != "confirmed" and gate_open:
        return Step.CONFIRM if unit.active and opened.is_for(unit) else Step.CLOSE_AGAIN
    if not unit.active or unit.invocation_id is None:
        return Step.LEAVE
    if opened and opened.stage != "begun" and opened.invocation_id == unit.invocation_id:
        return Step.LEAVE
    if gate_open:
        return Step.ADOPT
    return Step.OPEN if answering else Step.LEAVE


class Gates:
    """The gate files in *gate_dir*, and the record of openings in *record*.

    Methods raise OSError where the directories do not let them.
    """

    def __init__(self, gate_dir: Path, record: Path) -> None:
        self._dir = gate_dir
        self._record = record

    def path(self, name: str) -> Path:
        """The file whose existence is the open gate of replica *name*."""
        return self._dir / name

    def is_open(self, name: str) -> bool | None:
        """The gate is open; None when that cannot be seen."""
        try:
            self.path(name).lstat()
        except FileNotFoundError:
            return False
        except OSError:
            return None
        return True

    def open(self, name: str) -> bool:
        """Open the gate; False when it already was open. Creating the file is atomic."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            os.close(os.open(self.path(name), flags, 0o644))
        except FileExistsError:
            return False
        return True

    def close(self, name: str) -> None:
        """Close the gate; one that is closed stays so."""
        self.path(name).unlink(missing_ok=True)

    def recorded(self) -> dict[str, Opened]:
        """The openings on record. Raises ValueError when the record cannot be understood."""
        try:
            data = self._record.read_bytes()
        except FileNotFoundError:
            return {}
        try:
            return msgspec.json.decode(data, type=dict[str, Opened])
        except msgspec.DecodeError as error:
            raise ValueError(f"{self._record}: {error}") from error

    def record(self, openings: dict[str, Opened]) -> None:
        """Replace the record, atomically."""
        self._record.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = self._record.with_name(self._record.name + ".new")
        fresh.write_bytes(msgspec.json.encode(openings))
        fresh.replace(self._record)
