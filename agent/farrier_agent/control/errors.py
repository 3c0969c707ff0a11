"""What can go wrong on the control socket. ``code`` is the exit code of the command line::

ControlError             1  it did not work
├── UsageError           2  it was asked for wrongly
│   └── ProtocolError    2  what was said is not the protocol (also a ValueError)
├── RefusedError         3  a safety check forbids it
├── NoAgentError         1  no agent answers on the socket
└── LostError            1  the agent went away before its last word
"""

from __future__ import annotations

from typing import ClassVar, Literal

__all__ = [
    "Code",
    "ControlError",
    "LostError",
    "NoAgentError",
    "ProtocolError",
    "RefusedError",
    "UsageError",
]

Code = Literal[1, 2, 3]


class ControlError(Exception):
    """It did not work; the message says what, where and why, *next* is a command to type."""

    code: ClassVar[Code] = 1

    def __init__(self, text: str, next: str | None = None) -> None:  # noqa: A002 - as it is spoken
        super().__init__(text)
        self.next = next


class UsageError(ControlError):
    """It was asked for wrongly: a replica that is none, options that exclude one another."""

    code: ClassVar[Code] = 2


class ProtocolError(UsageError, ValueError):
    """What came over the socket is not this protocol; the message names the field."""


class RefusedError(ControlError):
    """It could be done, and must not: as taking back a drain while systemd stops the unit."""

    code: ClassVar[Code] = 3


class NoAgentError(ControlError):
    """No agent answers on the socket."""


class LostError(ControlError):
    """The agent went away, or fell silent, before it had said how it ended."""
