"""What the agent answers: signs of life, how replicas fare, and most last words."""

from __future__ import annotations

from typing import Literal

import msgspec

from farrier_agent.control.errors import Code
from farrier_agent.control.requests import VERSION
from farrier_agent.fingerprint.made import Fingerprint as Print
from farrier_agent.status import Difference
from farrier_agent.status import Status as Snapshot

__all__ = [
    "Accepted",
    "Beat",
    "Bundle",
    "Done",
    "Entry",
    "Failed",
    "Fingerprinted",
    "Progress",
    "Report",
    "Result",
    "Said",
    "Told",
]


class Said(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """A message of the agent's; ``kind`` tells which."""


class Accepted(Said, frozen=True, kw_only=True, tag="accepted"):
    """The request was understood. ``agent`` is the agent's version, ``version`` the protocol's."""

    version: int = VERSION
    agent: str


class Beat(Said, frozen=True, kw_only=True, tag="beat"):
    """The agent is alive and still at it."""


class Progress(Said, frozen=True, kw_only=True, tag="progress"):
    """How a replica fares. ``state`` is a state of the replica, as serving names them.

    ``remaining`` are the seconds to the deadline; ``text`` is for a person.
    """

    replica: str
    state: str
    in_flight: int | None = None
    remaining: float | None = None
    text: str = ""


class Entry(Said, frozen=True, kw_only=True, tag="entry"):
    """One entry of the journal; ``priority`` is syslog's (3 error, 4 warning, 6 information)."""

    at: float
    priority: int = 6
    message: str
    replica: str | None = None
    cause: str | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one replica.

    ``code`` as an exit code: 0 done, 1 failed, 3 refused. ``changed`` is false when it was so
    already. ``in_flight`` when it was asked, ``cut`` requests that were not let finish,
    ``seconds`` that it took; of a rollout's restart also its parts: ``stop_seconds`` to the end of
    the engine, ``start_seconds`` until its unit was active, ``warm_seconds`` until it was warm.
    """

    replica: str
    state: str
    code: Literal[0, 1, 3] = 0
    changed: bool = True
    text: str = ""
    in_flight: int | None = None
    cut: int = 0
    seconds: float | None = None
    stop_seconds: float | None = None
    start_seconds: float | None = None
    warm_seconds: float | None = None


class Done(Said, frozen=True, kw_only=True, tag="done"):
    """The last word about replicas, or (without any) about a journal."""

    results: tuple[Result, ...] = ()


class Report(Said, frozen=True, kw_only=True, tag="report"):
    """The last word of ``status``."""

    status: Snapshot


class Bundle(Said, frozen=True, kw_only=True, tag="bundle"):
    """The last word of ``evidence``, and of ``gpu bundle``: where it lies on the host.

    ``missing``: what it lacks, why. ``sha256`` is the file's, and ``words`` are for who returns a
    board: both only of ``gpu bundle``.
    """

    path: str
    size_bytes: int
    missing: tuple[str, ...] = ()
    sha256: str | None = None
    words: tuple[str, ...] = ()


class Fingerprinted(Said, frozen=True, kw_only=True, tag="fingerprinted"):
    """The last word of ``fingerprint``: what was ``recorded``, and the host as it is ``now``.

    ``differences`` are those between the two, ``missing`` what could not be measured, and why.
    """

    action: Literal["record", "check", "show", "measure"]
    recorded: Print | None = None
    now: Print | None = None
    differences: tuple[Difference, ...] = ()
    missing: tuple[str, ...] = ()


class Told(Said, frozen=True, kw_only=True, tag="told"):
    """The last word where there is only something to say: ``lines`` for a person."""

    lines: tuple[str, ...] = ()


class Failed(Said, frozen=True, kw_only=True, tag="failed"):
    """The last word when the request as a whole came to nothing. ``code`` is the exit code."""

    code: Code
    error: str
    next: str | None = None
