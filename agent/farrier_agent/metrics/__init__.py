"""What ``/metrics`` serves, made from a snapshot. An unknown value makes no sample.

``family`` says what a family is and writes its samples, ``page`` puts them all on a page in either
format; the other modules are one for each subject: which families there are, and their samples.
docs/metrics.md is made from them.
"""

from __future__ import annotations

from farrier_agent.metrics.host import UNIT_STATES
from farrier_agent.metrics.page import NOTHING, Extra, gather
from farrier_agent.metrics.replicas import HEALTH, PHASES
from farrier_agent.status import Status

__all__ = ["HEALTH", "PHASES", "UNIT_STATES", "Extra", "render"]


def render(status: Status, extra: Extra = NOTHING) -> bytes:
    """*status*, and the agent's own process, in the text exposition format 0.0.4."""
    return gather(status, extra).text("text")
