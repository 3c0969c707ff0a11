"""A drain's deadline passes: each policy does what it says, and what it cut is counted (5 min)."""

from __future__ import annotations

import json

import pytest

from tests.roles.fleet import Fleet, until
from tests.roles.proof import assert_nothing_lost, at_work
from tests.roles.traffic import Plan

LONG = Plan(streams=12, posts=6, uploads=3, tokens=150)
"""Streams of 15 s at ten words a second."""
DRAIN = "farrier-agent drain tiny --json --wait --deadline 5 --on-deadline"


def drained(fleet: Fleet, host: str, policy: str, *, code: int = 0) -> dict[str, object]:
    """Drain *host* with *policy*; the replica's line of the last reply."""
    said = fleet.root(host, f"{DRAIN} {policy}; echo $?").splitlines()
    assert int(said[-1]) == code, said
    last: dict[str, object] = json.loads(said[-2])["results"][0]
    return last


@pytest.mark.parametrize("host", ["gpu02", "gpu03"])
def test_extend_waits_on(fleet: Fleet, host: str) -> None:
    fleet.manners(host, token_delay=0.1)
    try:
        with fleet.traffic(host, LONG) as traffic:
            at_work(traffic)
            began = traffic.now
            drained(fleet, host, "extend")
            assert traffic.now - began > 5
            drain = fleet.status(host)["replicas"][0]["drain"]
            assert (drain["forced"], drain["cut"]) == (False, None)
            fleet.root(host, "farrier-agent ready tiny --wait")
    finally:
        fleet.root(host, "farrier-agent ready tiny", check=False)
    assert_nothing_lost(fleet, host, traffic)
    assert traffic.of("refused")


@pytest.mark.parametrize("host", ["gpu02", "gpu03"])
def test_abort_serves_again(fleet: Fleet, host: str) -> None:
    engine = fleet.unit(host, "engine-tiny", "InvocationID")
    fleet.manners(host, token_delay=0.1)
    with fleet.traffic(host, LONG) as traffic:
        at_work(traffic)
        drained(fleet, host, "abort", code=1)
        assert fleet.gate(host)
        assert fleet.phase(host) == "ready"
        again = traffic.now
        until(lambda: traffic.of("whole", since=again), 60, "it serves again")
    assert_nothing_lost(fleet, host, traffic)
    assert not traffic.of("refused", since=again)
    assert fleet.unit(host, "engine-tiny", "InvocationID") == engine


@pytest.mark.parametrize("command", [f"{DRAIN} abort", "farrier-agent ready tiny"])
def test_a_stop_by_systemd_cannot_be_taken_back(fleet: Fleet, command: str) -> None:
    host = "gpu02"
    fleet.manners(host, token_delay=0.1)
    with fleet.traffic(host, LONG) as traffic:
        at_work(traffic)
        fleet.root(host, "systemctl restart --no-block engine-tiny")
        until(lambda: fleet.phase(host) == "draining", 30, "it drains")
        said = fleet.root(host, f"{command} 2>&1; echo $?")
        assert said.endswith("\n3\n"), said
        until(lambda: fleet.phase(host) == "ready", 90, "the engine is warm again")
    assert_nothing_lost(fleet, host, traffic)


@pytest.mark.parametrize("host", ["gpu02", "gpu03"])
def test_force_counts_what_the_stop_then_cuts(fleet: Fleet, host: str) -> None:
    """Drained by force, and stopped at once: who was left is cut, and was counted."""
    fleet.manners(host, token_delay=0.1)
    plan = Plan(streams=12, posts=6, uploads=3, tokens=400)
    with fleet.traffic(host, plan) as traffic:
        at_work(traffic)
        said = drained(fleet, host, "force")
        assert traffic.of("cut") == []
        fleet.root(host, "systemctl restart engine-tiny")
        until(lambda: fleet.gate(host), 60, "the engine is warm and its gate open again")
    cut = traffic.of("cut")
    assert {one.kind for one in cut} == {"stream", "upload"}
    assert said["cut"] == len(cut) == 15
    assert len(traffic.faults(fleet.executed(host, traffic))) == len(cut)
    last = fleet.status(host)["replicas"][0]["last_drain"]
    journal = fleet.root(host, "journalctl -q -u farrier-agent -n 60 -o cat")
    assert "15 requests" in journal, (last, journal)
