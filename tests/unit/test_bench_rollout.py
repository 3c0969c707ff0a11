"""What a rollout's ledger says of its parts, for docs/benchmarks.md."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench.fleet import FleetError
from tests.bench.rollout import parts


def _ledger(**changed: Any) -> dict[str, Any]:
    replica = {
        "drain_seconds": 5.0,
        "stop_seconds": 0.5,
        "start_seconds": 4.0,
        "warm_seconds": 1.0,
    } | changed
    steps = [
        {"step": "drain", "began_at": 10.0, "ended_at": 16.0},
        {"step": "act", "began_at": 16.0, "ended_at": 22.5},
    ]
    hosts = [{"replicas": [dict(replica)], "steps": steps} for _ in range(3)]
    return {"id": "r-1", "outcome": "done", "reason": None, "hosts": hosts}


def test_parts_are_summed_over_the_hosts() -> None:
    found = parts(_ledger(), 42.0)
    assert found.wall == 42.0
    assert (found.drain, found.engines) == (15.0, 16.5)
    assert found.steps == {"drain": 18.0, "act": 19.5}


def test_a_part_that_is_not_known_is_no_figure() -> None:
    with pytest.raises(FleetError, match="r-1"):
        parts(_ledger(warm_seconds=None), 42.0)
