"""Rolling restarts while gateways and hosts are disturbed: blind, stopped, reloaded, dead (20 min).

HAProxy 3.0 and 2.6 (Debian 13 and 12) before three hosts; the engines are stand-ins. The clients'
ledger, the engines' accounts and HAProxy's log have to tell the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from farrier.load import Background
from tests.fleet.accounts import agree, busy, logged
from tests.fleet.disturbing import down, drained, lose_power, lost_checks
from tests.fleet.rolling import (
    as_it_was,
    checkout,
    gateway_of,
    here,
    load,
    nothing_lost,
    quickly,
    rollout,
    runs,
    started,
    warmed_up,
)
from tests.fleet.site import Site, account
from tests.roles.fleet import until

__all__ = ["as_it_was", "here"]

GATEWAYS = ("gw01", "gw02")
RESTART = ["rollout", "restart", "-y", "--model", "tiny"]


@pytest.fixture(params=GATEWAYS)
def gateway(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.parametrize("agents", [False, True], ids=["checks", "agents-too"])
def test_the_gateway_is_cut_off_from_every_check(
    site: Site, here: Path, gateway: str, agents: bool
) -> None:
    """With *agents* it hears of no drain: the gates alone keep requests from drained hosts."""
    before = runs(site)
    with load(site, gateway=gateway) as it:
        warmed_up(it)
        with lost_checks(site, gateway, agents=agents):
            until(lambda: down(site, gateway) >= 4, 60, "no host answers its check")
            ledger = rollout(site, "restart", "-y", "--model", "tiny", cwd=here)
        until(lambda: not down(site, gateway), 30, "every host answers its check")
        busy(it)
        nothing_lost(site, it)
    assert ledger["outcome"] == "done"
    assert all(before[host] != run for host, run in runs(site).items())


def test_one_of_two_gateways_stops_as_planned(site: Site, here: Path, gateway: str) -> None:
    (other,) = set(GATEWAYS) - {gateway}
    before = runs(site)
    with load(site, gateway=other) as beside, load(site, gateway=gateway) as it:
        warmed_up(it)
        warmed_up(beside)
        with started(site, RESTART, here) as process:
            quickly(lambda: site.phase("gpu01") == "draining", 60, "gpu01 drains")
            site.root(gateway, "systemctl stop haproxy")
            stopped = it.ledger.now
            said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        until(lambda: it.ledger.of("unreached", since=stopped), 30, "nobody is let in any more")
        assert not it.ledger.of("complete", since=stopped)
        site.root(gateway, "systemctl start haproxy")
        until(lambda: it.ledger.of("complete", since=stopped), 60, "it serves again")
        nothing_lost(site, beside)
        it.end()
    agree(site, gateway, it.ledger, "unreached")
    assert all(before[host] != run for host, run in runs(site).items())


@pytest.mark.parametrize("verb", ["reload", "restart"])
def test_haproxy_anew_with_the_agent_of_a_drained_host_dead(
    site: Site, here: Path, gateway: str, verb: str
) -> None:
    """gpu01 is kept drained and its agent is dead: what changes gpu02 must not send it anything."""
    before = runs(site)
    argv = [*RESTART, "--limit", "gpu02"]
    with load(site, gateway=gateway) as it:
        warmed_up(it)
        with drained(site, "gpu01", frozen=True):
            begun = it.ledger.now
            with started(site, argv, here) as process:
                quickly(lambda: site.phase("gpu02") == "draining", 120, "gpu02 drains")
                site.root(gateway, f"systemctl {verb} haproxy")
                said, _ = process.communicate(timeout=300)
            assert process.returncode == 0, said
            ended = it.ledger.now
        nothing_lost(site, it)
    assert runs(site)["gpu02"] != before["gpu02"]
    assert runs(site)["gpu01"] == before["gpu01"]
    log = logged(site, gateway, it.ledger.prefix, since=it.ledger.started.timestamp() - 1)
    meanwhile = [one for one in it.ledger.requests if begun < one.began and one.ended < ended]
    assert len(meanwhile) > 50
    assert not [one for one in meanwhile if log[one.name][-1]["replica"] == "gpu01:tiny"]


# ---- power ------------------------------------------------------------------------------------


def draining(site: Site) -> bool:
    return site.phase("gpu02") == "draining"


def acting(site: Site) -> bool:
    return site.phase("gpu02") == "starting"


POWER = {
    "drains": ("gpu02", draining),
    "starts": ("gpu02", acting),
    "waits-for-its-turn": ("gpu03", draining),
}
"""Whose power is cut, and when."""


@pytest.mark.parametrize("when", POWER)
def test_a_host_loses_its_power(
    site: Site, here: Path, tmp_path: Path, gateway: str, when: str
) -> None:
    """What was in flight there is lost and told, nothing else; then it goes on from elsewhere."""
    victim, moment = POWER[when]
    reached: Callable[[Site], bool] = moment
    before = runs(site)
    with load(site, gateway=gateway) as it:
        warmed_up(it)
        site.manners("gpu02", token_delay=0.1)
        with started(site, [*RESTART, "--first", "gpu02", "--lease", "15"], here) as process:
            quickly(lambda: reached(site), 120, f"gpu02 {when}")
            lose_power(site, victim)
            cut = it.ledger.now
            said, _ = process.communicate(timeout=300)
        print(said)
        assert process.returncode == 1, said
        assert victim in said
        assert "farrier rollout resume" in said
        busy(it)
        others = [host for host in site.gpus if host != victim]
        assert all(site.gate(host) for host in others)
        site.lab.start(victim)
        ledger = rollout(site, "resume", cwd=checkout(tmp_path / "elsewhere"))
        assert ledger["outcome"] == "done"
        busy(it)
        it.end()
    if when == "drains":
        (replica,) = ledger["hosts"][0]["replicas"]
        assert ledger["lost"] == replica["cut"] > 0
    after = runs(site)
    assert all(before[host] != run for host, run in after.items())
    only_there(site, it, f"{victim}:tiny", cut)
    assert when == "starts" or it.ledger.losses(), "something was in flight there"
    assert not [one for one in it.ledger.requests if one.outcome in {"refused", "unreached"}]
    assert not [n for n in site.executed(it.ledger.prefix).values() if n > 1]


def only_there(site: Site, it: Background, replica: str, cut: float) -> None:
    """What was lost was at *replica* when its power was cut; the gateway says so, and said it."""
    log = logged(site, gateway_of(site, it), it.ledger.prefix)
    host = replica.partition(":")[0]
    there = site.root(host, f"grep -F {it.ledger.prefix} {account('tiny')}")
    for one in it.ledger.losses():
        assert one.began < cut < one.ended, str(one)
        if one.outcome == "dropped" and one.reused:
            # HAProxy closes a kept connection without a word, not even to its log, when the
            # server's breaks before an answer (http_ana.c, abort_keep_alive).
            assert one.name not in log
            assert f'"{one.name}"' in there, str(one)
            continue
        line = log[one.name][-1]
        assert line["replica"] == replica, (str(one), line)
        # No client has to find out by its own patience.
        assert line["termination"].startswith("S"), (str(one), line)
