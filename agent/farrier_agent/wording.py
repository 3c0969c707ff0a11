"""How values read in every text of the agent's that a person sees."""

from __future__ import annotations

import time

__all__ = ["clock", "counted", "duration", "printable"]


def printable(text: str) -> str:
    """*text* in one line that moves no cursor and changes no colour."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in text)


def duration(seconds: float) -> str:
    """*seconds* as ``4.2 s``, ``14:21 min`` or ``3:05 h``; less than none are none."""
    if seconds < 59.95:
        return f"{max(0.0, seconds):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02} h" if hours < 48 else f"{hours // 24} days"


def clock(at: float, now: float) -> str:
    """The moment *at*, seconds since the epoch, on this host's clock; with its day if not today."""
    try:
        moment, today = time.localtime(at), time.localtime(now)
    except (OverflowError, OSError, ValueError):
        return "?"
    same = moment[:3] == today[:3]
    return time.strftime("%H:%M:%S" if same else "%Y-%m-%d %H:%M:%S", moment)


def counted(number: int, what: str) -> str:
    """``1 request``, ``2 requests``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
