"""The connections that there are: a bounded crowd, in which silence keeps nobody out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["MAX_CONNECTIONS", "MAX_SILENT", "Crowd", "Member"]

MAX_SILENT = 64
"""Connections without a whole request, a half handshake among them."""
MAX_CONNECTIONS = 256
"""All of them, those too whose clients do not read."""


class Member(Protocol):
    """A connection. ``since`` is when it came, or was answered last."""

    since: float

    @property
    def silent(self) -> bool:
        """No answer of ours is under way."""

    @property
    def welcome(self) -> bool:
        """It has been answered what it asked for."""

    def abort(self) -> None:
        """End it now."""


class Crowd:
    """Lets the newest in, for who has something to ask says so at once.

    One too many, and the oldest goes that says nothing; of those rather one that was never given
    an answer than a Prometheus between two scrapes.
    """

    def __init__(self) -> None:
        self._members: set[Member] = set()

    def __len__(self) -> int:
        return len(self._members)

    def join(self, one: Member) -> None:
        """Make room for *one*, and let it in."""
        silent = [other for other in self._members if other.silent]
        if len(silent) >= MAX_SILENT:
            self._put_out(min(silent, key=_precedence))
        if len(self._members) >= MAX_CONNECTIONS:
            self._put_out(min(self._members, key=_precedence))
        self._members.add(one)

    def leave(self, one: Member) -> None:
        """*one* is gone."""
        self._members.discard(one)

    def each(self, what: Callable[[Member], None]) -> None:
        """Do *what* with all of them."""
        for one in tuple(self._members):
            what(one)

    def _put_out(self, one: Member) -> None:
        self._members.discard(one)
        one.abort()


def _precedence(one: Member) -> tuple[bool, float]:
    return one.welcome, one.since
