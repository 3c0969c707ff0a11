"""What a head's agent says of its replica's run, and what a member makes of it. Pure.

A member of rank 1 or more has joined one run of the head's unit, and is of no use to another: the
processes of both have met once, when they started. So it ends when that run is over, and never for
not hearing of it.
"""

from __future__ import annotations

import re

from farrier_agent.status import Unit

__all__ = ["ENDED", "RUN", "is_over", "joinable", "read", "told"]

RUN = b"run "
"""The question, before the replica's name."""
ENDED = ""
"""No run: the unit is stopped, failed, or waits for its next start."""

_OVER = frozenset(
    {"auto-restart", "auto-restart-queued", "stop-post", "final-sigterm", "final-sigkill"}
)
"""States below *activating* and *deactivating* in which the main process has ended."""
_ANSWER = re.compile(rb"(?:running ([0-9a-f]{32})|ended)\n")


def told(unit: Unit) -> bytes | None:
    """The answer about *unit*, the head's; None where its run has no name yet.

    While it drains, and until its main process has ended, it is running.
    """
    if unit.active_state in {"inactive", "failed"} or unit.sub_state in _OVER:
        return b"ended\n"
    if unit.invocation_id is None:
        return None
    return b"running " + unit.invocation_id.encode() + b"\n"


def read(answer: bytes) -> str | None:
    """The run that *answer* names, :data:`ENDED`; None for what is no answer."""
    match = _ANSWER.fullmatch(answer)
    if match is None:
        return None
    return match[1].decode() if match[1] else ENDED


def joinable(heard: str | None) -> bool:
    """There is a run to join."""
    return bool(heard)


def is_over(joined: str, heard: str | None) -> bool:
    """The run that was *joined* is known to be over: no answer is no news."""
    return heard is not None and heard != joined
