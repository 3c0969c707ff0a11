"""The operator is killed at each step of a driver's change, and another carries on (45 min)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.driver_fleet.changing import (
    GATES,
    ONE_HOST,
    STEPS,
    as_it_was,
    gates,
    is_changed,
    reached,
)
from tests.driver_fleet.conftest import site
from tests.driver_fleet.site import NEW, DriverSite
from tests.fleet.rolling import (
    checkout,
    here,
    kill,
    load,
    nothing_lost,
    rollout,
    started,
    warmed_up,
)

__all__ = ["here", "site"]

pytestmark = pytest.mark.usefixtures(as_it_was.__name__)


@pytest.mark.parametrize("step", STEPS)
def test_the_operator_is_killed_at_any_step(
    site: DriverSite, here: Path, tmp_path: Path, step: str
) -> None:
    with load(site) as it:
        warmed_up(it)
        with started(site, ONE_HOST, here) as process:
            reached(here, process, step)
            kill(process)
        ledger = rollout(site, "resume", cwd=checkout(tmp_path / "elsewhere"), timeout=1500)
        nothing_lost(site, it)
    assert ledger["outcome"] == "done"
    is_changed(site, "gpu01", NEW)
    assert {name for name, one in gates(ledger["hosts"][0]).items() if one["ok"]} >= GATES
