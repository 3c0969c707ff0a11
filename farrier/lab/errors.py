"""The one exception of the lab."""

from __future__ import annotations

__all__ = ["LabError"]


class LabError(RuntimeError):
    """The lab cannot do what was asked; the message says what, where, why and the next command."""
