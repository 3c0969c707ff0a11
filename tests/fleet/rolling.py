"""What tests of rollouts share: an operator's checkout, the load, and what has to be true of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from farrier.load import Endpoint, Plan
from farrier.load.background import Background
from tests.fleet.accounts import agree, dropped
from tests.fleet.site import Site
from tests.roles.converging import ROOT
from tests.roles.fleet import until

__all__ = [
    "LOAD",
    "WAIT",
    "as_it_was",
    "begun",
    "changed_arguments",
    "checkout",
    "does_not_start",
    "gateway_of",
    "here",
    "kill",
    "killed_and_resumed",
    "leased",
    "load",
    "nothing_lost",
    "quickly",
    "rollout",
    "runs",
    "started",
    "step_of",
    "units",
    "warmed_up",
]

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
    kind, *words = argv  # what follows "--" is the command's own
    done = site.farrier("rollout", kind, "--json", *words, cwd=cwd, check=check, **more)
    said = json.loads(done.stdout.splitlines()[-1])
    assert "outcome" in said, said
    return said


def runs(site: Site) -> dict[str, str]:
    """The run of the unit of *tiny* on each host."""
    return {host: site.unit(host, "engine-tiny.service", "InvocationID") for host in site.gpus}


def units(site: Site) -> dict[str, str]:
    """The configuration of the unit of *tiny* that lies on each host."""
    line = "grep ^X-FarrierConfigHash= /etc/systemd/system/engine-tiny.service"
    return {host: site.ssh(host, line).strip().partition("=")[2] for host in site.gpus}


def load(site: Site, plan: Plan = LOAD, gateway: str | None = None) -> Background:
    """Clients of *gateway*, or of the first there is."""
    endpoint = Endpoint(site.url(gateway or site.gateways[0]), {"everyone": site.key})
    return Background(plan, endpoint)


def warmed_up(it: Background) -> None:
    until(lambda: len(it.ledger.requests) > 20, 60, "the load runs")


def nothing_lost(site: Site, it: Background) -> None:
    """Every request was answered whole, none was executed twice, and all accounts say so."""
    ledger, gateway = it.end(), gateway_of(site, it)
    # Where journald is starved of the cores, HAProxy counts the lines that it could not log.
    agree(site, gateway, ledger, unlogged=dropped(site, gateway))
    assert len(ledger.of("complete")) > 50


def gateway_of(site: Site, it: Background) -> str:
    """The gateway whose clients *it* is."""
    (gateway,) = [name for name in site.gateways if it.endpoint.url == site.url(name)]
    return gateway


def changed_arguments(site: Site) -> dict[str, str]:
    """The environment of an inventory in which every replica of *tiny* is to be restarted."""
    changed = {
        host: [
            {**model, "env": {"ROLLED": str(time.time())}} if model["name"] == "tiny" else model
            for model in site.converge.models[host]
        ]
        for host in site.gpus
    }
    return site.environment(models=changed)


def does_not_start(site: Site) -> dict[str, str]:
    """The environment of an inventory whose *tiny* ends at once."""
    command = ["/usr/bin/python3", "-c", "raise SystemExit('no such option')", "{host}", "{port}"]
    broken = {
        host: [
            {**model, "command": command} if model["name"] == "tiny" else model
            for model in site.converge.models[host]
        ]
        for host in site.gpus
    }
    return site.environment(models=broken)


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
def started(
    site: Site, argv: list[str], cwd: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """``farrier``, begun; whatever a test finds, it is not left behind."""
    process = site.start(argv, cwd=cwd, environment=environment)
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


def killed_and_resumed(site: Site, here: Path, tmp_path: Path, step: str) -> None:
    """The operator's process is killed when gpu02 is at *step*; another goes on elsewhere."""
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
