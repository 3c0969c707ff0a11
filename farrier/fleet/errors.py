"""What can go wrong on the way to a host::

InventoryError           the inventory cannot be used; nobody was asked
ShellError               one host: ``host``, ``what`` went wrong and why, ``next`` to type
├── UnreachableError     no connection: name, route, port, login; nothing was run
│   └── HostKeyError     its key is not known, or is another one than is known
├── SudoError            logged in, and sudo refuses; nothing was run
├── NoAgentError         the host has no farrier-agent to ask, or one not to be understood
├── NoAnswerError        connected, and no end within the time; it may still run
└── LostError            the connection broke after a command was sent; it may have run, or run
"""

from __future__ import annotations

from typing import Any

from farrier.explain import NEXT

__all__ = [
    "HostKeyError",
    "InventoryError",
    "LostError",
    "NoAgentError",
    "NoAnswerError",
    "ShellError",
    "SudoError",
    "UnreachableError",
]


class InventoryError(ValueError):
    """The inventory has mistakes; the text is what ``pyinfra inventory …`` says of them.

    ``problems`` are those that can be told apart, as JSON; ``code`` is the exit code.
    """

    def __init__(self, message: str, problems: tuple[Any, ...] = (), code: int = 1) -> None:
        super().__init__(message)
        self.problems = problems
        self.code = code


class ShellError(Exception):
    """Something about one host; its text is ``what`` and, on a line of its own, ``next``."""

    def __init__(self, host: str, what: str, next: str = "") -> None:  # noqa: A002 - as spoken
        super().__init__(f"{host}: {what}{NEXT + next if next else ''}")
        self.host = host
        self.what = what
        self.next = next

    @classmethod
    def told(cls, host: str, sentence: str) -> ShellError:
        """From a *sentence* of :mod:`farrier.explain`, which has the next step in it."""
        what, _, step = sentence.partition(NEXT)
        return cls(host, what, step)

    def to_json(self) -> dict[str, str]:
        """This error as plain values; ``kind`` is the name of its class."""
        return {"kind": type(self).__name__, "what": self.what, "next": self.next}


class UnreachableError(ShellError):
    """There is no connection, so nothing was run."""


class HostKeyError(UnreachableError):
    """The host's key is not in known_hosts, or is another one."""


class SudoError(ShellError):
    """The login works and sudo does not; nothing was run."""


class NoAgentError(ShellError):
    """``farrier-agent`` is not there, or what it said cannot be understood."""


class NoAnswerError(ShellError):
    """No end within the time that was given; the command may still run there."""


class LostError(ShellError):
    """The connection broke under a command: whether it ran, and runs on, is not known."""
