"""Rolling changes under the whole load, three times each, and what disturbs them (75 min)."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from farrier.load import Plan
from tests.fleet.rolling import (
    as_it_was,
    changed_arguments,
    checkout,
    does_not_start,
    here,
    killed_and_resumed,
    load,
    nothing_lost,
    quickly,
    rollout,
    runs,
    started,
    units,
    warmed_up,
)
from tests.fleet.site import Site
from tests.roles.fleet import until

__all__ = ["as_it_was", "here"]

WHOLE = Plan(models=("tiny",), seconds=1800)
"""40 streams of 1 to 60 s, 40 loops of POSTs, 10 new connections a second, 5 slow uploads."""
GATEWAYS = ("gw01", "gw02")
"""Debian 13 with HAProxy 3.0, Debian 12 with 2.6."""


@pytest.mark.parametrize("turn", [1, 2, 3])
@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("kind", ["restart", "reboot", "converge"])
def test_nothing_is_lost_under_the_whole_load(
    site: Site, here: Path, gateway: str, kind: str, turn: int
) -> None:
    before = runs(site)
    argv = {
        "restart": ["--model", "tiny"],
        "reboot": ["--allow-gap", "--measure", "0"],
        "converge": [],
    }[kind]
    environment = changed_arguments(site) if kind == "converge" else site.environment()
    with load(site, WHOLE, gateway) as it:
        warmed_up(it)
        ledger = rollout(site, kind, "-y", *argv, cwd=here, environment=environment, timeout=1500)
        nothing_lost(site, it)
    assert ledger["outcome"] == "done"
    assert all(before[host] != run for host, run in runs(site).items())


def test_a_rolling_reboot_loses_nothing(site: Site, here: Path) -> None:
    boots = {host: site.ssh(host, "cat /proc/sys/kernel/random/boot_id") for host in site.gpus}
    with load(site) as it:
        warmed_up(it)
        ledger = rollout(
            site, "reboot", "-y", "--allow-gap", "--soak", "3", "--measure", "2", cwd=here
        )
        nothing_lost(site, it)
    assert ledger["outcome"] == "done"
    for host in site.gpus:
        assert site.ssh(host, "cat /proc/sys/kernel/random/boot_id") != boots[host]


def test_a_command_runs_on_drained_hosts_only(site: Site, here: Path) -> None:
    command = "ls /run/farrier/open/; hostname"
    ledger = rollout(
        site,
        "run",
        "-y",
        "--limit",
        "gpu01",
        "--limit",
        "gpu02",
        "--",
        "sh",
        "-c",
        command,
        cwd=here,
    )
    assert [one["output"].split() for one in ledger["hosts"]] == [["gpu01"], ["gpu02"]]
    failing = rollout(site, "run", "-y", "--limit", "gpu01", "--", "false", cwd=here, check=1)
    assert failing["outcome"] == "failed"
    assert "ended with 1" in failing["hosts"][0]["failure"]
    assert not site.gate("gpu01")
    assert site.gate("gpu02")


@pytest.mark.parametrize("step", ["drain", "act", "check", "ready", "settle"])
def test_killed_at_any_step_it_goes_on_elsewhere(
    site: Site, here: Path, tmp_path: Path, step: str
) -> None:
    killed_and_resumed(site, here, tmp_path, step)


def test_an_operator_who_sleeps_longer_than_the_lease_is_refused(site: Site, here: Path) -> None:
    before = runs(site)
    site.manners("gpu01", token_delay=1.0)
    argv = ["rollout", "restart", "-y", "--model", "tiny", "--limit", "gpu01", "--lease", "5"]
    with load(site) as it:
        warmed_up(it)
        with started(site, argv, here) as process:
            quickly(lambda: site.phase("gpu01") == "draining", 60, "gpu01 drains")
            os.killpg(process.pid, signal.SIGSTOP)
            try:
                # nobody holds it any more: it takes itself back
                quickly(lambda: site.phase("gpu01") == "ready", 60, "gpu01 serves again")
            finally:
                os.killpg(process.pid, signal.SIGCONT)
            said, _ = process.communicate(timeout=60)
        assert process.returncode == 3, said
        assert "farrier rollout resume" in said
        assert runs(site)["gpu01"] == before["gpu01"]
        assert site.phase("gpu01") == "ready"
        site.manners("gpu01", token_delay=0.02)
        assert rollout(site, "resume", cwd=here)["outcome"] == "done"
        nothing_lost(site, it)
    assert runs(site)["gpu01"] != before["gpu01"]


def test_ctrl_c_takes_back_what_is_drained(site: Site, here: Path) -> None:
    before = runs(site)
    site.manners("gpu01", token_delay=1.0)
    argv = ["rollout", "restart", "-y", "--model", "tiny", "--limit", "gpu01"]
    with load(site) as it:
        warmed_up(it)
        with started(site, argv, here) as process:
            until(lambda: site.phase("gpu01") == "draining", 60, "gpu01 drains")
            os.kill(process.pid, signal.SIGINT)
            said, _ = process.communicate(timeout=60)
        assert process.returncode == 1, said
        assert site.phase("gpu01") == "ready"
        site.manners("gpu01", token_delay=0.02)
        nothing_lost(site, it)
    assert runs(site) == before
    assert rollout(site, "abort", cwd=here)["outcome"] == "aborted"


def test_abort_from_elsewhere_takes_back_and_fences(site: Site, here: Path, tmp_path: Path) -> None:
    site.manners("gpu01", token_delay=1.0)
    argv = ["rollout", "restart", "-y", "--model", "tiny", "--limit", "gpu01"]
    with load(site) as it:
        warmed_up(it)
        with started(site, argv, here) as process:
            quickly(lambda: site.phase("gpu01") == "draining", 60, "gpu01 drains")
            ledger = rollout(site, "abort", cwd=checkout(tmp_path / "elsewhere"))
            assert ledger["outcome"] == "aborted"
            said, _ = process.communicate(timeout=60)
        assert process.returncode == 3, said
        assert site.phase("gpu01") == "ready"
        site.manners("gpu01", token_delay=0.02)
        nothing_lost(site, it)


def test_a_hook_that_fails_stops_it_before_anything_is_drained(site: Site, here: Path) -> None:
    before = runs(site)
    hook = here / "hook"
    hook.write_text(
        '#!/bin/sh\necho "$FARRIER_WHEN $FARRIER_HOST" >> hooked\n[ $FARRIER_HOST = gpu01 ]\n'
    )
    hook.chmod(0o755)
    argv = (
        "restart",
        "-y",
        "--model",
        "tiny",
        "--hook-before",
        str(hook),
        "--hook-after",
        str(hook),
    )
    ledger = rollout(site, *argv, cwd=here, check=1)
    assert [one["state"] for one in ledger["hosts"]] == ["done", "failed", "waiting"]
    assert (here / "hooked").read_text().split("\n") == [
        "before gpu01",
        "after gpu01",
        "before gpu02",
        "",
    ]
    assert site.gate("gpu02")
    assert runs(site)["gpu02"] == before["gpu02"]


def test_ssh_cut_for_half_a_minute_is_survived(site: Site, here: Path) -> None:
    before = runs(site)
    site.manners("gpu01", token_delay=0.5)
    argv = ["rollout", "restart", "-y", "--model", "tiny", "--limit", "gpu01", "--json"]
    drop = (
        "nft add table inet cut; nft add chain inet cut in '{ type filter hook input priority 0; }'"
    )
    with load(site) as it:
        warmed_up(it)
        with started(site, argv, here) as process:
            quickly(lambda: site.phase("gpu01") == "draining", 60, "gpu01 drains")
            # for both ways of a cut: packets that vanish, and connections that are gone after it
            site.root(
                "gpu01",
                f"{drop}; nft add rule inet cut in tcp dport 22 drop;"
                " systemd-run --on-active=30 --timer-property=AccuracySec=100ms"
                " sh -c 'nft delete table inet cut;"
                " pkill -f ^sshd:.*@notty'",
                check=False,
            )
            said, _ = process.communicate(timeout=180)
        assert process.returncode == 0, said
        site.manners("gpu01", token_delay=0.02)
        nothing_lost(site, it)
    assert runs(site)["gpu01"] != before["gpu01"]


def test_what_does_not_start_stops_the_rollout_and_the_rest_serves(site: Site, here: Path) -> None:
    before = runs(site)
    with load(site) as it:
        warmed_up(it)
        ledger = rollout(
            site, "converge", "-y", cwd=here, environment=does_not_start(site), check=1
        )
        assert ledger["outcome"] == "failed"
        assert [one["state"] for one in ledger["hosts"]] == ["failed", "waiting", "waiting"]
        assert f"farrier rollout resume {ledger['id']}" in ledger["next"]
        assert "farrier rollout rollback --limit gpu01" in ledger["next"]
        assert not site.gate("gpu01")
        assert [site.gate(host) for host in ("gpu02", "gpu03")] == [True, True]
        assert {host: runs(site)[host] for host in ("gpu02", "gpu03")} == {
            host: before[host] for host in ("gpu02", "gpu03")
        }
        # what was right before is put back into the inventory, and the same rollout goes on
        ledger = rollout(site, "resume", cwd=here)
        assert ledger["outcome"] == "done"
        assert [site.gate(host) for host in site.gpus] == [True, True, True]
        nothing_lost(site, it)


def test_what_does_not_start_is_rolled_back_host_by_host(site: Site, here: Path) -> None:
    """Also the hosts that took a new version which is well go back to the one before."""
    before = units(site)
    environment = changed_arguments(site)
    with load(site) as it:
        warmed_up(it)
        assert rollout(site, "converge", "-y", cwd=here, environment=environment)["lost"] == 0
        newer = units(site)
        assert all(before[host] != newer[host] for host in site.gpus)
        rollout(site, "converge", "-y", cwd=here, environment=does_not_start(site), check=1)
        assert not site.gate("gpu01")
        ledger = rollout(site, "rollback", "-y", cwd=here)
        assert ledger["outcome"] == "done"
        nothing_lost(site, it)
    # gpu01 goes back to the last that was warm there, the others to the one before theirs
    assert units(site) == before | {"gpu01": newer["gpu01"]}
    assert [site.gate(host) for host in site.gpus] == [True, True, True]
