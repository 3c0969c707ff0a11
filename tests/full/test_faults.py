"""Every fault on a real host with eight GPUs (of a fake NVML) and four replicas (20 min).

Replica a uses the GPUs 0 and 1, b 2 and 3, c 4 and 5, d 6 and 7; another host serves all models.
"""

from __future__ import annotations

import json
from functools import partial

import pytest

from tests.roles.faults import FAULTS, Fault, Site
from tests.roles.fleet import STAND_IN, Fleet, until

HOST, OTHER = "gpu02", "gpu03"
READY = dict.fromkeys("abcd", "ready")


@pytest.fixture(scope="module")
def wide(fleet: Fleet) -> Fleet:
    """The fleet with four replicas on each of the two hosts."""
    Site(fleet, HOST, 8).state()
    Site(fleet, HOST, 8).bus(range(8))
    for host in (HOST, OTHER):
        fleet.root(host, "systemctl stop engine-tiny")
        fleet.converge.models[host] = [
            {
                **STAND_IN,
                "name": f"model-{name}",
                "replica": name,
                "port": 8111 + number,
                "gpus": [2 * number, 2 * number + 1] if host == HOST else [],
                "command": STAND_IN["command"][:-2],
            }
            for number, name in enumerate("abcd")
        ]
    run = fleet.converge(timeout=900)
    assert run.returncode == 0, run.last_words(60)
    until(lambda: fleet.ready(OTHER), 120, f"{OTHER} serves all four")
    return fleet


@pytest.fixture
def site(wide: Fleet) -> Site:
    one = Site(wide, HOST, 8)
    one.well()
    assert one.phases() == READY
    return one


def check(site: Site, fault: Fault, *gpus: int) -> None:
    """*fault* on *gpus* is told in time, and drains whom it concerns and nobody else."""
    with site.scraped():
        site.inject(fault, *gpus)
        for gpu in gpus:
            found = partial(site.found, fault.rule, None if fault.host else gpu)
            reason = until(found, fault.ticks + 3, fault.rule)
            assert reason["state"] == fault.state, reason
            assert fault.next in reason["next"], reason
        hit = {"abcd"[gpu // 2] for gpu in gpus} if fault.drains else set()
        wanted = READY | dict.fromkeys(hit, "drained")
        until(lambda: site.phases() == wanted, 30, f"{wanted}, not {site.phases()}")
        moment = site.status()["at"]
        until(lambda: site.status()["at"] > moment + 4, 20, "four more looks")
        assert site.phases() == wanted
        for name in "abcd":
            assert site.fleet.gate(HOST, name) == (name not in hit)


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault(site: Site, name: str) -> None:
    check(site, FAULTS[name], 2)


def test_four_of_eight_gpus_are_gone(site: Site) -> None:
    check(site, FAULTS["a GPU is gone"], 4, 5, 6, 7)


def test_garbage_is_dropped_and_no_verdict(site: Site) -> None:
    values = {
        "temperature": 345,
        "utilization.gpu": 808334905,
        "memory.used": 9223372036854775794,
        "power.usage": 4294967295,
        "clock.sm": 4294967295,
    }
    with site.scraped():
        site.state(*(f"2.{name} {value}" for name, value in values.items()))
        dropped = "farrier_gpu_invalid_samples_total{"
        until(lambda: dropped in site.fleet.metrics(HOST), 10, "what was dropped is counted")
        page = site.fleet.metrics(HOST)
    assert "345" not in [line.rpartition(" ")[2] for line in page.splitlines()]
    assert not site.reasons()
    assert site.phases() == READY


def test_everything_at_once_and_nobody_to_take_over(site: Site) -> None:
    """The breaker: the other host's agent is stopped, so nobody is known to serve the models."""
    site.fleet.root(OTHER, "systemctl stop farrier-agent")
    try:
        site.inject(FAULTS["a GPU is lost"], *range(8))
        until(
            lambda: len([one for one in site.reasons() if one.get("held_back")]) >= 4,
            40,
            f"all four are held back: {json.dumps(site.reasons())[:2000]}",
        )
        assert site.phases() == READY
    finally:
        site.fleet.root(OTHER, "systemctl start farrier-agent")
