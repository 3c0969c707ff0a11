"""What a run has to say at its very end, after pyinfra's own table.

Operations of many hosts run interleaved, so a failure's explanation scrolls away and a *restart
pending* is easily missed. Notes are collected here and printed once, by host, when the run ends.
"""

from __future__ import annotations

import atexit
import sys
from dataclasses import dataclass

__all__ = ["Note", "note", "notes"]


@dataclass(frozen=True, slots=True)
class Note:
    """One line of the summary: *kind* is ``pending``, ``left`` or ``failed``."""

    kind: str
    host: str
    text: str


_notes: list[Note] = []
_HEADINGS = {
    "pending": "Restart pending (running engines are never restarted by a converge):",
    "left": "Left as it is:",
    "failed": "Failed:",
}


def note(kind: str, host: str, text: str) -> bool:
    """Remember *text* about *host* for the end of the run; False if it was remembered before."""
    if not _notes:
        atexit.register(_print)
    # Texts that were laid out for pyinfra's output are indented for it.
    item = Note(kind, host, text.replace("\n        ", "\n"))
    if item in _notes:
        return False
    _notes.append(item)
    return True


def notes() -> tuple[Note, ...]:
    """All notes so far, in order."""
    return tuple(_notes)


def _print() -> None:
    for kind, heading in _HEADINGS.items():
        lines = [item for item in _notes if item.kind == kind]
        if lines:
            print(f"\n{heading}", file=sys.stderr)
            for item in sorted(lines, key=lambda line: line.host):
                indented = item.text.replace("\n", "\n      ")
                print(f"  {item.host}: {indented}", file=sys.stderr)
