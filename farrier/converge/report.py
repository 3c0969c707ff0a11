"""What a run has to say at its very end, after pyinfra's own table.

Operations of many hosts run interleaved, so a failure's explanation scrolls away and a *restart
pending* is easily missed. Notes are collected here and printed once, by host, when the run ends.
"""

from __future__ import annotations

import atexit
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Note", "forget", "note", "notes", "only_refused", "refused", "why_refused"]


@dataclass(frozen=True, slots=True)
class Note:
    """One line of the summary: *kind* is a key of :data:`_HEADINGS`."""

    kind: str
    host: str
    text: str


_notes: list[Note] = []
_refused: dict[str, str] = {}
_HEADINGS = {
    "attention": "Works, and will bite:",
    "pending": "Restart pending (running engines are never restarted by a converge):",
    "yours": "Left to you (nothing is rebooted, restarted or exchanged behind your back):",
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


def refused(host: str, why: str = "") -> None:
    """Remember that the preflight refused *host*: nothing was changed on it, nothing failed."""
    _refused[host] = why


def why_refused(host: str) -> str | None:
    """Why the preflight refused *host*; None where it did not."""
    return _refused.get(host)


def only_refused(failed: Iterable[str]) -> bool:
    """Whether hosts *failed*, and all of them because the preflight refused them."""
    names = set(failed)
    return bool(names) and names <= _refused.keys()


def forget() -> None:
    """Forget every note: for a program that says it all itself."""
    _notes.clear()


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
