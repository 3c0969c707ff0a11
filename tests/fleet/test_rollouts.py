"""Rolling changes of the fleet under load, and what becomes of them when they are disturbed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from farrier.load import Endpoint, Plan
from farrier.load.background import Background
from tests.fleet.site import Site
from tests.roles.converging import ROOT
from tests.roles.fleet import until

LOAD = Plan(
    models=("tiny",),
    seconds=600,
    streams=10,
    stream_seconds=(1.0, 15.0),
    posts=8,
    fresh=4,
    uploads=2,
)
"""Enough that requests of every kind are in flight at every step; the whole is tests/full's."""


@pytest.fixture(autouse=True)
def as_it_was(site: Site) -> Iterator[None]:
    """Every replica serves again, and no lease is left, for the next test."""
    yield
    for host in site.gpus:
        until(lambda: not leased(site, host), 70, f"the lease of {host} is over")  # noqa: B023
        site.root(host, "farrier-agent act done; farrier-agent ready --all --wait", check=False)
        site.root(
            host, "systemctl start 'engine-*' --all; rm -f /tmp/begun /tmp/go-on", check=False
        )
        until(lambda: site.ready(host), 120, f"{host} serves")  # noqa: B023


def leased(site: Site, host: str) -> bool:
    """A rollout has the lease of *host*."""
    lease = site.root(host, "farrier-agent lease show --json")
    return json.loads(lease.splitlines()[-1]).get("rollout") is not None


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A checkout of the operator's: its ledgers are its own."""
    return checkout(tmp_path / "here")


def checkout(path: Path) -> Path:
    """Another directory with the same inventory."""
    path.mkdir()
    for name in ("config.py", "inventory", "deploys", "roles", "farrier"):
        (path / name).symlink_to(ROOT / name)
    return path


def rollout(site: Site, *argv: str, cwd: Path, check: int = 0, **more: Any) -> Any:
    """The ledger that ``farrier rollout … --json`` prints."""
    done = site.farrier("rollout", *argv, "--json", cwd=cwd, check=check, **more)
    said = json.loads(done.stdout.splitlines()[-1])
    assert "outcome" in said, said
    return said


def runs(site: Site) -> dict[str, str]:
    """The run of the unit of *tiny* on each host."""
    return {host: site.unit(host, "engine-tiny.service", "InvocationID") for host in site.gpus}


def load(site: Site) -> Background:
    return Background(LOAD, Endpoint(site.url(site.gateways[0]), {"everyone": site.key}))


def warmed_up(it: Background) -> None:
    until(lambda: len(it.ledger.requests) > 20, 60, "the load runs")


def nothing_lost(site: Site, it: Background) -> None:
    """Every request was answered whole or refused, and none was executed twice."""
    ledger = it.end()
    assert ledger.lost == 0, [
        (one.name, one.kind, one.outcome, one.detail)
        for one in ledger.of("incomplete", "aborted", "dropped", "wrong")
    ]
    twice = {name: n for name, n in site.executed(ledger.prefix, "tiny").items() if n > 1}
    assert twice == {}
    assert not ledger.of("refused"), [one.detail for one in ledger.of("refused")][:5]
    assert len(ledger.of("complete")) > 50


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


def test_a_rolling_reboot_loses_nothing(site: Site, here: Path) -> None:
    boots = {host: site.ssh(host, "cat /proc/sys/kernel/random/boot_id") for host in site.gpus}
    with load(site) as it:
        warmed_up(it)
        ledger = rollout(site, "reboot", "-y", "--allow-gap", "--soak", "3", cwd=here)
        nothing_lost(site, it)
    assert ledger["outcome"] == "done"
    for host in site.gpus:
        assert site.ssh(host, "cat /proc/sys/kernel/random/boot_id") != boots[host]


def test_a_rolling_change_of_arguments_loses_nothing(site: Site, here: Path) -> None:
    before = runs(site)
    changed = {
        host: [
            {**model, "env": {"ROLLED": str(time.time())}} if model["name"] == "tiny" else model
            for model in site.converge.models[host]
        ]
        for host in site.gpus
    }
    environment = site.environment(models=changed)
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


def quickly(condition: Callable[[], bool], patience: float, what: str) -> None:
    """As ``until``, for what is soon over."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"not within {patience:.0f} s: {what}"
        time.sleep(0.01)


WAIT = "touch /tmp/begun; while ! [ -e /tmp/go-on ]; do sleep 0.1; done; rm /tmp/begun /tmp/go-on"
"""A command that waits until a test lets it go on."""


def begun(site: Site, host: str) -> bool:
    return site.ssh(host, "ls /tmp/begun 2>/dev/null", check=False) != ""


@contextmanager
def started(site: Site, argv: list[str], cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """``farrier``, begun; whatever a test finds, it is not left behind."""
    process = site.start(argv, cwd=cwd)
    try:
        yield process
    finally:
        if process.poll() is None:
            kill(process)
        if process.stdout is not None:
            process.stdout.close()


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def step_of(cwd: Path, host: str) -> str | None:
    """The step that *host* is at, from the ledger of the rollout in *cwd*."""
    for path in (cwd / ".farrier" / "rollouts").glob("r-*.json"):
        ledger = json.loads(path.read_text())
        for one in ledger["hosts"]:
            if one["host"] == host and one["steps"]:
                step: str = one["steps"][-1]["step"]
                return step
    return None


@pytest.mark.parametrize("step", ["drain", "act", "warm", "check", "ready", "settle"])
def test_killed_at_any_step_it_goes_on_elsewhere(
    site: Site, here: Path, tmp_path: Path, step: str
) -> None:
    before = runs(site)
    argv = ["rollout", "restart", "-y", "--model", "tiny", "--lease", "10"]
    with load(site) as it:
        warmed_up(it)
        with started(site, argv, here) as first:
            quickly(lambda: step_of(here, "gpu02") == step, 180, f"gpu02 is at {step}")
            kill(first)
        at = runs(site)
        elsewhere = checkout(tmp_path / "elsewhere")
        ledger = rollout(site, "resume", cwd=elsewhere)
        nothing_lost(site, it)
    after = runs(site)
    assert ledger["outcome"] == "done"
    assert len(ledger["operators"]) == 2
    assert after["gpu01"] == at["gpu01"] != before["gpu01"], "done once, not done again"
    assert after["gpu02"] != before["gpu02"]
    assert at["gpu02"] in {before["gpu02"], after["gpu02"]}, "restarted once"
    assert after["gpu03"] != before["gpu03"]


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


def test_what_does_not_start_stops_the_rollout_and_the_rest_serves(site: Site, here: Path) -> None:
    before = runs(site)
    broken = {
        host: [
            {
                **model,
                "command": [
                    "/usr/bin/python3",
                    "-c",
                    "raise SystemExit('no such option')",
                    "{host}",
                    "{port}",
                ],
            }
            if model["name"] == "tiny"
            else model
            for model in site.converge.models[host]
        ]
        for host in site.gpus
    }
    with load(site) as it:
        warmed_up(it)
        ledger = rollout(
            site, "converge", "-y", cwd=here, environment=site.environment(models=broken), check=1
        )
        assert ledger["outcome"] == "failed"
        assert [one["state"] for one in ledger["hosts"]] == ["failed", "waiting", "waiting"]
        assert ledger["next"]
        assert not site.gate("gpu01")
        assert [site.gate(host) for host in ("gpu02", "gpu03")] == [True, True]
        assert {host: runs(site)[host] for host in ("gpu02", "gpu03")} == {
            host: before[host] for host in ("gpu02", "gpu03")
        }
        # what was right before is put back, and the same rollout goes on
        ledger = rollout(site, "converge", "-y", cwd=here)
        assert ledger["outcome"] == "done"
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
                " systemd-run --on-active=30 sh -c 'nft delete table inet cut;"
                " pkill -f ^sshd:.*@notty'",
                check=False,
            )
            said, _ = process.communicate(timeout=180)
        assert process.returncode == 0, said
        site.manners("gpu01", token_delay=0.02)
        nothing_lost(site, it)
    assert runs(site)["gpu01"] != before["gpu01"]
