"""Drivers of hosts that serve, changed under load, whole fleets and ways that fail (20 min)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.driver_fleet.changing import (
    GATES,
    MEASURE,
    as_it_was,
    change,
    gates,
    is_changed,
    latest,
    reached,
)
from tests.driver_fleet.conftest import site
from tests.driver_fleet.site import NEW, OLD, DriverSite, boot, comes_with, installed, loaded
from tests.fleet.accounts import busy
from tests.fleet.rolling import (
    here,
    load,
    nothing_lost,
    started,
    warmed_up,
)

__all__ = ["here", "site"]

pytestmark = pytest.mark.usefixtures(as_it_was.__name__)

NEXT_BRANCH = "590.48.01"
DRIVER = ["rollout", "driver", "-y", "--to", NEW, *MEASURE]


def test_three_hosts_take_another_driver_and_lose_nothing(site: DriverSite, here: Path) -> None:
    boots = {host: boot(site, host) for host in site.gpus}
    with load(site) as it:
        warmed_up(it)
        ledger = change(site, NEW, "--first", "gpu01", cwd=here)
        busy(it)
        nothing_lost(site, it)
    assert ledger["outcome"] == "done"
    assert ledger["lost"] == 0
    assert sorted(one["host"] for one in ledger["hosts"]) == site.gpus
    for one in ledger["hosts"]:
        is_changed(site, one["host"], NEW)
        assert (one["driver_before"], one["driver_wanted"]) == (OLD, NEW)
        assert boot(site, one["host"]) != boots[one["host"]] or one["host"] == "gpu03"
        found = gates(one)
        assert set(found) >= GATES
        assert [name for name in GATES if not found[name]["ok"]] == []
        (replica,) = one["replicas"]
        assert replica["cut"] == 0
    recorded = site.farrier("fingerprint", "check", "--seconds", "0").stdout
    assert recorded.count("as it was recorded at ") == 3, recorded
    table = site.farrier("rollout", "show", ledger["id"], cwd=here).stdout
    assert NEW in table
    # Nothing is left to do; and the inventory, which still names the old one, is told of.
    again = change(site, NEW, cwd=here)
    assert again["outcome"] == "done"


def test_another_branch(site: DriverSite, here: Path) -> None:
    with load(site) as it:
        warmed_up(it)
        ledger = change(site, NEXT_BRANCH, "--limit", "gpu03", cwd=here)
        nothing_lost(site, it)
    assert ledger["outcome"] == "done"
    is_changed(site, "gpu03", NEXT_BRANCH)
    is_changed(site, "gpu01", OLD)


def test_a_version_that_is_not_on_offer_is_refused_before_any_drain(
    site: DriverSite, here: Path
) -> None:
    states = {host: site.unit(host, "engine-tiny.service", "InvocationID") for host in site.gpus}
    done = site.farrier(
        "rollout", "driver", "-y", "--to", "580.99.99", cwd=here, check=None, timeout=300
    )
    assert done.returncode in {1, 3}, done.stdout + done.stderr
    said = done.stdout + done.stderr
    assert "580.99.99" in said
    assert "is not on offer" in said
    assert NEW in said
    for host in site.gpus:
        is_changed(site, host, OLD)
        assert site.unit(host, "engine-tiny.service", "InvocationID") == states[host]
        assert "draining" not in site.root(host, "farrier-agent audit --json --since 5m || true")


def test_dry_tells_the_plan_and_changes_nothing(site: DriverSite, here: Path) -> None:
    done = site.farrier("rollout", "driver", "--to", NEW, "--dry", cwd=here, timeout=300)
    said = done.stdout + done.stderr
    for host in site.gpus:
        assert host in said
        is_changed(site, host, OLD)
    assert OLD in said
    assert NEW in said


def test_what_fails_after_it_was_turned_back_stays_closed(site: DriverSite, here: Path) -> None:
    """The way back fails as well: the host stays closed, and says what to do."""
    comes_with(site, "gpu01", NEW, "NVML 2.pcie.width 8")
    with load(site) as it:
        warmed_up(it)
        with started(site, [*DRIVER, "--limit", "gpu01"], here) as process:
            reached(here, process, "install")
            comes_with(site, "gpu01", OLD, "NVML 2.pcie.width 8")
            said, _ = process.communicate(timeout=900)
        nothing_lost(site, it)
    print(said)
    assert process.returncode == 1
    assert "pcie-width" in said
    assert not site.gate("gpu01")
    record = latest(here)["hosts"][0]
    assert record["state"] == "failed"
    assert installed(site, "gpu01") == loaded(site, "gpu01") == OLD
    # it was the riser: once that is put right, the same rollout finishes the way back
    comes_with(site, "gpu01", OLD)
    site.root("gpu01", "systemctl reboot", check=False)
    site.farrier("rollout", "resume", cwd=here, check=None, timeout=900)
    is_changed(site, "gpu01", OLD)
