"""Wedged engines on real hosts are found and restarted once; busy ones never (13 min)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from tests.roles.agent_toml import other_settings
from tests.roles.converging import Converge
from tests.roles.fleet import STAND_IN, Fleet, until
from tests.roles.proof import assert_nothing_lost, at_work
from tests.roles.traffic import Plan

MINUTES = 10


JUDGED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    # what the stand-in tells of its load is vLLM's
    "by its load": ("gpu02", {"engine": "vllm"}),
    "by its sockets": ("gpu03", {"silent_seconds": 20.0}),
}


@pytest.mark.parametrize("how", JUDGED)
def test_a_wedge_is_found_and_ended_once(fleet: Fleet, how: str) -> None:
    host, settings = JUDGED[how]
    before = bundles(fleet, host)
    engine = fleet.unit(host, "engine-tiny", "InvocationID")
    with other_settings(fleet, host, **settings):
        restarts = fleet.status(host)["replicas"][0]["health_restarts"]
        fleet.manners(host, token_delay=0.1)
        with fleet.traffic(host, Plan(streams=10, posts=6, uploads=2)) as traffic:
            at_work(traffic)
            fleet.manners(host, answers="wedge")
            health = "curl -s -o /dev/null -w %{http_code} 127.0.0.1:8101/health"
            assert fleet.ssh(host, health) == "200"
            wedged = traffic.now
            until(lambda: not fleet.gate(host), 60, "its gate is closed")
            found = traffic.now - wedged
            until(lambda: fleet.gate(host), 60, "the engine is warm and its gate open again")
            opened = traffic.now
            until(lambda: traffic.of("whole", since=opened), 60, "it serves again")
            time.sleep(20)  # nothing more happens: there is no condition to wait for
        replica = fleet.status(host)["replicas"][0]
    print(f"{host}: wedge found after {found:.1f} s; {dict(traffic.counts())}")
    assert found <= 30
    assert (replica["phase"], replica["health_restarts"]) == ("ready", restarts + 1)
    assert fleet.unit(host, "engine-tiny", "InvocationID") != engine
    (bundle,) = bundles(fleet, host) - before
    assert "tiny" in bundle
    # who was in the wedged engine is lost, and nobody else
    lost = traffic.of("cut")
    assert lost
    assert max(one.began for one in lost) <= wedged + found + 1
    assert len(traffic.faults(fleet.executed(host, traffic))) == len(lost)


def bundles(fleet: Fleet, host: str) -> set[str]:
    """What evidence is kept on *host*."""
    return set(fleet.root(host, "ls /var/lib/farrier/evidence").split())


def test_ten_minutes_of_a_full_queue_are_no_wedge(fleet: Fleet, converge: Converge) -> None:
    host = "gpu03"
    at_once = [*STAND_IN["command"], "--max-running", "4"]
    run = converge(models={host: [{**STAND_IN, "command": at_once}]}, limit=[host])
    assert run.returncode == 0, run.last_words()
    fleet.root(host, "farrier-agent restart tiny --wait")
    engine = fleet.unit(host, "engine-tiny", "InvocationID")
    health = fleet.status(host)["replicas"][0]["health_restarts"]
    seen: Counter[str] = Counter()
    try:
        # each stream takes 4 s, and waits for 26 others
        plan = Plan(streams=30, posts=5, uploads=2, tokens=200, pause=5)
        with (
            other_settings(fleet, host, engine="vllm"),
            fleet.traffic(host, plan, patience=200) as traffic,
        ):
            end = time.monotonic() + MINUTES * 60
            while time.monotonic() < end:
                replica = fleet.status(host)["replicas"][0]
                seen[replica["health"]] += 1
                assert replica["phase"] == "ready", replica
                assert fleet.gate(host)
                time.sleep(2)  # a sample every two seconds of a span that has no condition
            waiting = fleet.ssh(host, "curl -s 127.0.0.1:8101/metrics | grep ^vllm:num_requests_w")
            assert float(waiting.split()[-1]) >= 20
        assert_nothing_lost(fleet, host, traffic)
        assert fleet.unit(host, "engine-tiny", "InvocationID") == engine
        assert fleet.status(host)["replicas"][0]["health_restarts"] == health
    finally:
        assert converge(limit=[host]).returncode == 0
        fleet.root(host, "farrier-agent restart tiny --wait")
    print(f"{host}: {dict(seen)}")
    assert seen["busy"] >= seen.total() * 0.9
    assert seen["wedged"] == 0
