"""A host loses its power at each step of its driver's change, and is taken up again (50 min)."""

from __future__ import annotations

from pathlib import Path

import pytest

from farrier.load.background import Background
from tests.driver_fleet.changing import ONE_HOST, STEPS, as_it_was, is_changed, reached
from tests.driver_fleet.conftest import site
from tests.driver_fleet.site import NEW, DriverSite
from tests.fleet.accounts import busy
from tests.fleet.disturbing import lose_power
from tests.fleet.rolling import checkout, here, load, nothing_lost, rollout, started, warmed_up

__all__ = ["here", "site"]

pytestmark = pytest.mark.usefixtures(as_it_was.__name__)


@pytest.mark.parametrize("step", STEPS)
def test_the_host_loses_its_power_at_any_step(
    site: DriverSite, here: Path, tmp_path: Path, step: str
) -> None:
    """What is found afterwards is taken up where it stands; the rest of the fleet serves on."""
    with load(site) as it:
        warmed_up(it)
        with started(site, ONE_HOST, here) as process:
            reached(here, process, step)
            lose_power(site, "gpu01")
            said, _ = process.communicate(timeout=600)
        print(said)
        busy(it)
        site.lab.start("gpu01")
        assert process.returncode == 1, said
        assert "farrier rollout resume" in said
        ledger = rollout(site, "resume", cwd=checkout(tmp_path / "elsewhere"), timeout=1500)
        busy(it)
        it.end()
    assert ledger["outcome"] == "done", ledger
    is_changed(site, "gpu01", NEW)
    only_of(site, it, "gpu01", step)


def only_of(site: DriverSite, it: Background, host: str, step: str) -> None:
    """Nothing was lost but what *host* had in flight when its power was cut; drained: nothing."""
    losses = it.ledger.losses()
    if step not in {"plan", "drain", "ready", "settle"}:
        assert not losses, [str(one) for one in losses][:5]
    assert not [one for one in it.ledger.requests if one.outcome in {"refused", "unreached"}]
    assert not [n for n in site.executed(it.ledger.prefix, "tiny").values() if n > 1]


def test_power_is_lost_in_the_middle_of_the_build(
    site: DriverSite, here: Path, tmp_path: Path
) -> None:
    with load(site) as it:
        warmed_up(it)
        with started(site, ONE_HOST, here) as process:
            reached(here, process, "install")
            site.root("gpu01", "timeout 300 sh -c 'until pgrep -x cc1 >/dev/null; do :; done'")
            lose_power(site, "gpu01")
            said, _ = process.communicate(timeout=600)
        site.lab.start("gpu01")
        assert process.returncode == 1, said
        ledger = rollout(site, "resume", cwd=checkout(tmp_path / "elsewhere"), timeout=1500)
        nothing_lost(site, it)
    assert ledger["outcome"] == "done"
    is_changed(site, "gpu01", NEW)
