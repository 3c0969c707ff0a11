"""Rollbacks that are disturbed: killed and resumed elsewhere, and hosts that cannot go back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleet.rolling import (
    as_it_was,
    changed_arguments,
    checkout,
    does_not_start,
    here,
    kill,
    leased,
    load,
    nothing_lost,
    quickly,
    rollout,
    runs,
    started,
    step_of,
    units,
    warmed_up,
)
from tests.fleet.site import Site
from tests.roles.fleet import until

__all__ = ["as_it_was", "here"]

PREVIOUS = "/var/lib/farrier/previous/engine-tiny.service"


@pytest.fixture
def older(site: Site, here: Path) -> dict[str, str]:
    """The configurations from before a converge that every host has taken and is well with."""
    before = units(site)
    rollout(site, "converge", "-y", cwd=here, environment=changed_arguments(site))
    assert all(before[host] != digest for host, digest in units(site).items())
    return before


@pytest.mark.parametrize("step", ["put-back", "drain", "act", "check", "settle"])
def test_a_rollback_that_was_killed_goes_on_elsewhere(
    site: Site, here: Path, tmp_path: Path, older: dict[str, str], step: str
) -> None:
    before = runs(site)
    argv = ["rollout", "rollback", "-y", "--model", "tiny", "--lease", "20"]
    with load(site) as it:
        warmed_up(it)
        with started(site, argv, here) as first:
            quickly(lambda: step_of(here, "gpu02") == step, 400, f"gpu02 is at {step}")
            kill(first)
        at = runs(site)
        ledger = rollout(site, "resume", cwd=checkout(tmp_path / "elsewhere"))
        nothing_lost(site, it)
    assert ledger["outcome"] == "done"
    assert units(site) == older, "each is back, and none is forward again"
    after = runs(site)
    assert after["gpu01"] == at["gpu01"] != before["gpu01"], "done once, not done again"
    assert at["gpu02"] in {before["gpu02"], after["gpu02"]}, "restarted once"
    assert all(before[host] != after[host] for host in site.gpus)


def test_a_second_rollback_goes_forward_and_says_so(
    site: Site, here: Path, older: dict[str, str]
) -> None:
    newer = units(site)
    shown = site.farrier("rollout", "rollback", "--dry", "--model", "tiny", cwd=here).stdout
    assert "goes back  gpu01:tiny: environment: ROLLED" in shown
    assert units(site) == newer
    # interrupted before anything was restarted, another one does not swing on
    argv = ["rollout", "rollback", "-y", "--limit", "gpu01", "--lease", "20"]
    with started(site, argv, here) as first:
        quickly(lambda: step_of(here, "gpu01") == "drain", 180, "gpu01 is drained")
        kill(first)
    again = site.farrier("rollout", "rollback", "--dry", "--limit", "gpu01", cwd=here).stdout
    assert "its unit was put back already" in again
    until(lambda: not leased(site, "gpu01"), 120, "its lease is over")
    until(lambda: site.ready("gpu01"), 120, "gpu01 took itself back")
    rollout(site, "rollback", "-y", "--model", "tiny", cwd=here)
    assert units(site) == older
    said = site.farrier("status", "--json").stdout
    assert "was put back" in said
    forward = site.farrier("rollout", "rollback", "--dry", "--model", "tiny", cwd=here).stdout
    assert "goes back  gpu01:tiny: forward again, to what was put back from: " in forward
    rollout(site, "rollback", "-y", "--model", "tiny", "--limit", "gpu01", cwd=here)
    assert units(site) == older | {"gpu01": newer["gpu01"]}


def test_hosts_without_anything_to_go_back_to_are_left_out(
    site: Site, here: Path, older: dict[str, str]
) -> None:
    newer = units(site)
    site.root("gpu01", f"rm {PREVIOUS}")
    site.root("gpu02", f"echo garbage > {PREVIOUS}")
    before = runs(site)
    ledger = rollout(site, "rollback", "-y", "--model", "tiny", cwd=here)
    assert [one["host"] for one in ledger["hosts"]] == ["gpu03"]
    assert ledger["left_out"] == [
        f"{host}:tiny: there is nothing to go back to" for host in ("gpu01", "gpu02")
    ]
    assert units(site) == newer | {"gpu03": older["gpu03"]}
    assert [runs(site)[host] == before[host] for host in site.gpus] == [True, True, False]
    # what looks like a unit and is none is refused on the host, and nothing was drained
    site.root("gpu02", f"echo X-FarrierConfigHash={'0' * 64} > {PREVIOUS}")
    ledger = rollout(site, "rollback", "-y", "--limit", "gpu02", cwd=here, check=3)
    assert "not the unit of an engine" in ledger["hosts"][0]["failure"]
    assert site.gate("gpu02")
    assert units(site)["gpu02"] == newer["gpu02"]


def test_without_its_agent_a_host_is_not_rolled_back(
    site: Site, here: Path, older: dict[str, str]
) -> None:
    newer = units(site)
    site.root("gpu02", "systemctl stop farrier-agent")
    try:
        done = site.farrier("rollout", "rollback", "-y", "--model", "tiny", cwd=here, check=3)
        assert "gpu02" in done.stderr
        assert "nothing was changed anywhere" in done.stderr
        assert units(site) == newer
    finally:
        site.root("gpu02", "systemctl start farrier-agent")


def test_another_converge_takes_over_what_does_not_start(site: Site, here: Path) -> None:
    rollout(site, "converge", "-y", cwd=here, environment=does_not_start(site), check=1)
    argv = ["rollout", "converge", "-y"]
    refused = site.farrier(*argv, cwd=here, check=3)
    assert "left this host half done" in refused.stderr
    with load(site) as it:
        warmed_up(it)
        ledger = rollout(site, "converge", "-y", "--takeover", cwd=here)
        nothing_lost(site, it)
    assert ledger["outcome"] == "done"
    assert [site.gate(host) for host in site.gpus] == [True, True, True]
