"""Drivers that are not as well, on a fleet under load: every gate failed once (60 min)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.driver_fleet.changing import (
    FAULTS,
    MEASURE,
    ONE_HOST,
    as_it_was,
    brings,
    gates,
    is_back,
    is_changed,
    latest,
)
from tests.driver_fleet.conftest import site
from tests.driver_fleet.site import NEW, DriverSite, boot
from tests.fleet.accounts import busy
from tests.fleet.rolling import here, load, nothing_lost, started, warmed_up

__all__ = ["here", "site"]

pytestmark = pytest.mark.usefixtures(as_it_was.__name__)


@pytest.mark.parametrize("what", FAULTS)
def test_a_gate_that_fails_turns_the_host_back(site: DriverSite, here: Path, what: str) -> None:
    """The host is put back to the former driver, proven by the same gates, and serves."""
    fault = FAULTS[what]
    brings(site, fault)
    boots = {host: boot(site, host) for host in site.gpus}
    with load(site) as it:
        warmed_up(it)
        done = site.farrier(
            *("rollout", "driver", "-y", "--first", "gpu01", "--to", fault.version, *MEASURE),
            cwd=here,
            check=1,
            timeout=1500,
        )
        busy(it)
        nothing_lost(site, it)
    said = done.stdout + done.stderr
    print(said)
    ledger = latest(here)
    record = is_back(site, ledger, "gpu01")
    for host in ("gpu02", "gpu03"):
        assert boot(site, host) == boots[host]
    if not fault.gate:
        assert fault.seen in said
        return
    assert f"gate {fault.gate}: " in record["turned"]
    assert record["turned"] in said
    found = gates(record)[fault.gate]
    assert found["ok"] is False
    assert fault.expected in found["expected"]
    assert fault.seen in found["seen"]


def test_a_speed_that_is_too_low_is_measured_once_more(site: DriverSite, here: Path) -> None:
    """Something else may have had the host's attention: it takes two to turn a host back."""
    brings(site, FAULTS["slow"])
    said = ""
    with load(site) as it:
        warmed_up(it)
        with started(site, ONE_HOST, here) as process:
            assert process.stdout is not None
            for line in process.stdout:
                said += line
                if "measuring once more: " in line:
                    site.manners("gpu01", token_delay=0.02)
            assert process.wait(60) == 0, said
        nothing_lost(site, it)
    assert "measuring once more: first-token, speed" in said
    is_changed(site, "gpu01", NEW)
