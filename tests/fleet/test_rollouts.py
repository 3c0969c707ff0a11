"""Rolling changes of the fleet under load, and what stops them; the matrix is tests/full's."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.fleet.rolling import (
    WAIT,
    as_it_was,
    begun,
    changed_arguments,
    checkout,
    does_not_start,
    here,
    killed_and_resumed,
    leased,
    load,
    nothing_lost,
    rollout,
    runs,
    started,
    units,
    warmed_up,
)
from tests.fleet.site import Site
from tests.roles.fleet import until

__all__ = ["as_it_was", "here"]


def test_a_rolling_restart_loses_nothing(site: Site, here: Path) -> None:
    before = runs(site)
    with load(site) as it:
        warmed_up(it)
        ledger = rollout(site, "restart", "-y", "--model", "tiny", "--first", "gpu02", cwd=here)
        nothing_lost(site, it)
    after = runs(site)
    assert all(before[host] != after[host] for host in site.gpus)
    assert ledger["outcome"] == "done"
    assert ledger["lost"] == 0
    assert [one["host"] for one in ledger["hosts"]] == ["gpu02", "gpu01", "gpu03"]
    for one in ledger["hosts"]:
        (replica,) = one["replicas"]
        assert replica["drain_seconds"] > 0
        assert replica["cut"] == 0
        assert replica["invocation_before"] == before[one["host"]]
        assert replica["invocation_after"] == after[one["host"]]
        assert replica["warm_seconds"] is not None
    assert int(ledger["requests"]["by_status"]["200"]) > 50
    # nothing of it is left, and each host keeps a copy and knows who it was
    for host in site.gpus:
        lease = json.loads(site.root(host, "farrier-agent lease show --json").splitlines()[-1])
        assert lease.get("rollout") is None
        assert lease.get("acting") is None
        copy = site.root(host, f"farrier-agent ledger get {ledger['id']}")
        assert json.loads(copy)["id"] == ledger["id"]
        audit = site.root(host, "farrier-agent audit --json")
        assert ledger["id"] in audit
        assert ledger["operators"][0]["holder"] in audit


def test_a_rolling_change_of_arguments_loses_nothing(site: Site, here: Path) -> None:
    before = runs(site)
    environment = changed_arguments(site)
    with load(site) as it:
        warmed_up(it)
        ledger = rollout(site, "converge", "-y", cwd=here, environment=environment)
        nothing_lost(site, it)
    assert ledger["outcome"] == "done"
    assert all(before[host] != run for host, run in runs(site).items())
    assert all(
        replica["configuration_before"] != replica["configuration_after"]
        for one in ledger["hosts"]
        for replica in one["replicas"]
    )
    again = rollout(site, "converge", "-y", cwd=here, environment=environment)
    assert [one["replicas"] for one in again["hosts"]] == [[], [], []]


def test_the_only_replica_of_a_model_is_not_taken_away(site: Site, here: Path) -> None:
    before = site.unit("gpu03", "engine-solo.service", "InvocationID")
    done = site.farrier("rollout", "restart", "-y", "--model", "solo", cwd=here, check=3)
    assert "nobody else serves solo" in done.stderr
    assert "--allow-gap" in done.stderr
    assert site.unit("gpu03", "engine-solo.service", "InvocationID") == before
    allowed = rollout(site, "restart", "-y", "--model", "solo", "--allow-gap", cwd=here)
    assert allowed["outcome"] == "done"
    assert site.unit("gpu03", "engine-solo.service", "InvocationID") != before


def test_the_second_of_two_rollouts_is_told_who_has_the_lease(
    site: Site, here: Path, tmp_path: Path
) -> None:
    argv = ["rollout", "run", "-y", "--limit", "gpu01", "--", "sh", "-c", WAIT]
    with started(site, argv, here) as first:
        until(lambda: begun(site, "gpu01"), 60, "the command runs")
        other = checkout(tmp_path / "other")
        done = site.farrier("rollout", "restart", "-y", "--model", "tiny", cwd=other, check=3)
        assert "gpu01" in done.stderr
        assert re.search(r"r-\d{8}-\d{4}-\w\w", done.stderr)
        assert "@" in done.stderr
        # all or none
        for host in ("gpu02", "gpu03"):
            assert not leased(site, host)
        site.root("gpu01", "touch /tmp/go-on")
        assert first.wait(timeout=120) == 0


def test_killed_while_it_acts_it_goes_on_elsewhere(site: Site, here: Path, tmp_path: Path) -> None:
    killed_and_resumed(site, here, tmp_path, "act")


def test_what_does_not_start_is_rolled_back_and_all_serve(site: Site, here: Path) -> None:
    before, configuration = runs(site), units(site)
    with load(site) as it:
        warmed_up(it)
        broken = does_not_start(site)
        failed = rollout(site, "converge", "-y", cwd=here, environment=broken, check=1)
        assert failed["outcome"] == "failed"
        assert not site.gate("gpu01")
        assert [site.gate(host) for host in ("gpu02", "gpu03")] == [True, True]
        _, _, way_back = failed["next"].partition("; or farrier rollout rollback ")
        assert way_back == "--limit gpu01"
        ledger = rollout(site, "rollback", "-y", *way_back.split(), cwd=here)
        assert ledger["outcome"] == "done"
        assert [site.gate(host) for host in site.gpus] == [True, True, True]
        nothing_lost(site, it)
    assert units(site) == configuration
    assert {one: runs(site)[one] for one in ("gpu02", "gpu03")} == {
        one: before[one] for one in ("gpu02", "gpu03")
    }
    # what never was warm is not kept
    again = site.farrier("rollout", "rollback", "-y", "--limit", "gpu01", cwd=here, check=3)
    assert "there is nothing to go back to" in again.stderr
