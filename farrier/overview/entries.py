"""Entries of a host's journal, from ``journalctl --output=json``. Pure."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from farrier_agent.wording import printable

__all__ = ["Entry", "entry"]


@dataclass(frozen=True)
class Entry:
    """One entry; ``at`` in seconds since the epoch, ``priority`` is syslog's (3 error, 6 info)."""

    host: str
    unit: str
    at: float
    priority: int | None
    message: str

    def shown(self, several: bool) -> str:
        """As lines for a person, with the host before them where *several* are shown."""
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.at))
        place = f"{self.host} " if several else ""
        unit = self.unit.removesuffix(".service")
        lines = self.message.splitlines() or [""]
        return "\n".join(f"{moment} {place}{unit} | {printable(line)}" for line in lines)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def entry(host: str, line: str) -> Entry | None:
    """The entry in *line*; None where it is none."""
    try:
        said = json.loads(line)
        return Entry(
            host,
            # what systemd says about a unit has it in UNIT, what the unit says in _SYSTEMD_UNIT
            str(said.get("UNIT") or said.get("_SYSTEMD_UNIT") or said.get("SYSLOG_IDENTIFIER")),
            int(said["__REALTIME_TIMESTAMP"]) / 1e6,
            int(said["PRIORITY"]) if "PRIORITY" in said else None,
            _text(said.get("MESSAGE")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _text(message: object) -> str:
    """journald gives what is no UTF-8, or has control characters, as a list of bytes."""
    if isinstance(message, list):
        if message and isinstance(message[0], int):
            return bytes(message).decode("utf-8", "replace")
        return " ".join(map(_text, message))  # a field that is there several times
    return "" if message is None else str(message)
