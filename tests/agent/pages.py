"""Pages of metrics for tests: what is on both forms of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from farrier_agent.metrics.page import Extra, gather
from farrier_agent.status import Status

from tests.agent.exposition import Samples, openmetrics, samples
from tests.agent.full_status import full_status

__all__ = ["NOBODY", "NOWHERE", "named", "of", "status_of"]

NOWHERE = Path("/nonexistent")
NOBODY = Extra(proc=NOWHERE)
"""Nothing is on a page but what its status says."""


def of(status: Status, extra: Extra = NOBODY) -> Samples:
    """The samples of *status*, which both formats have."""
    made = gather(status, extra)
    found = samples(made.text("text").decode())
    assert openmetrics(made.text("openmetrics").decode()) == found
    return found


def status_of(**fields: Any) -> Status:
    """A status of which little is known beside *fields*."""
    agent = full_status(gpus=1, replicas=1).agent
    return Status(host="a", at=1.0, accelerator="cuda", agent=agent, ready=True, **fields)


def named(name: str, found: Samples) -> dict[str, float]:
    """Values of the metric *name* by the values of their labels, in the order of these' names."""
    return {
        " ".join(value for _, value in labels): number
        for (one, labels), number in found.items()
        if one == name
    }
