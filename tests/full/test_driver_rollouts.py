"""Drivers of hosts that serve, changed under load: every gate failed once, power lost (60 min)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from farrier.load.background import Background
from tests.driver_fleet.changing import (
    FAULTS,
    GATES,
    MEASURE,
    as_it_was,
    brings,
    change,
    gates,
    is_back,
    is_changed,
)
from tests.driver_fleet.conftest import site
from tests.driver_fleet.site import NEW, OLD, DriverSite, boot, comes_with, installed, loaded
from tests.fleet.accounts import busy
from tests.fleet.disturbing import lose_power
from tests.fleet.rolling import (
    checkout,
    here,
    kill,
    load,
    nothing_lost,
    quickly,
    rollout,
    started,
    step_of,
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


def latest(here: Path) -> Any:
    """The ledger of the one rollout in *here*."""
    (path,) = (here / ".farrier" / "rollouts").glob("r-*.json")
    return json.loads(path.read_text())


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


STEPS = (
    *("plan", "drain", "measure", "let-go", "install", "reboot", "back", "take-up"),
    *("warm", "check", "ready", "settle"),
)


@pytest.mark.parametrize("step", STEPS)
def test_the_operator_is_killed_at_any_step(
    site: DriverSite, here: Path, tmp_path: Path, step: str
) -> None:
    with load(site) as it:
        warmed_up(it)
        with started(site, [*DRIVER, "--lease", "15", "--limit", "gpu01"], here) as process:
            reached(here, process, step)
            kill(process)
        ledger = rollout(site, "resume", cwd=checkout(tmp_path / "elsewhere"), timeout=1500)
        nothing_lost(site, it)
    assert ledger["outcome"] == "done"
    is_changed(site, "gpu01", NEW)
    assert {name for name, one in gates(ledger["hosts"][0]).items() if one["ok"]} >= GATES


@pytest.mark.parametrize("step", STEPS)
def test_the_host_loses_its_power_at_any_step(
    site: DriverSite, here: Path, tmp_path: Path, step: str
) -> None:
    """What is found afterwards is taken up where it stands; the rest of the fleet serves on."""
    with load(site) as it:
        warmed_up(it)
        with started(site, [*DRIVER, "--lease", "15", "--limit", "gpu01"], here) as process:
            reached(here, process, step)
            lose_power(site, "gpu01")
            said, _ = process.communicate(timeout=600)
        print(said)
        assert process.returncode == 1, said
        assert "farrier rollout resume" in said
        busy(it)
        site.lab.start("gpu01")
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


def reached(here: Path, process: subprocess.Popen[str], step: str) -> None:
    """Return when gpu01 is at *step*; fail with what *process* said if it ended before."""

    def there() -> bool:
        if process.poll() is not None:
            pytest.fail(f"it ended with {process.returncode}:\n{process.communicate()[0]}")
        return step_of(here, "gpu01") == step

    quickly(there, 400, f"gpu01 is at {step}")


def test_power_is_lost_in_the_middle_of_the_build(
    site: DriverSite, here: Path, tmp_path: Path
) -> None:
    with load(site) as it:
        warmed_up(it)
        with started(site, [*DRIVER, "--lease", "15", "--limit", "gpu01"], here) as process:
            reached(here, process, "install")
            site.root("gpu01", "timeout 300 sh -c 'until pgrep -x cc1 >/dev/null; do :; done'")
            lose_power(site, "gpu01")
            said, _ = process.communicate(timeout=600)
        assert process.returncode == 1, said
        site.lab.start("gpu01")
        ledger = rollout(site, "resume", cwd=checkout(tmp_path / "elsewhere"), timeout=1500)
        nothing_lost(site, it)
    assert ledger["outcome"] == "done"
    is_changed(site, "gpu01", NEW)


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
