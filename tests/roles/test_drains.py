"""Restarts, stops and upgrades under load: whoever was let in is served to the end, once.

The matrix of engines with bad manners is in tests/full/test_drains.py.
"""

from __future__ import annotations

import pytest

from tests.roles.cloud import cloud
from tests.roles.fleet import Fleet, until
from tests.roles.nginx_versions import downgrade, upgrade
from tests.roles.proof import assert_nothing_lost, at_work
from tests.roles.traffic import Plan

REAL = Plan(tokens=250, posts=10, pause=2.0)
"""For the real engine: some hundred tokens a second, for all of its streams together."""


@pytest.mark.parametrize(
    ("host", "command"),
    [
        ("gpu01", "systemctl restart engine-tiny"),  # the real vLLM
        ("gpu03", "systemctl restart engine-tiny"),  # a stand-in that dies at once on SIGTERM
        # systemd's own end of things, without the agent, on Debian 12
        ("gpu02", "systemctl stop farrier-agent; systemctl restart engine-tiny"),
    ],
)
def test_a_restart_under_load_cuts_nobody(fleet: Fleet, host: str, command: str) -> None:
    real = host == "gpu01"
    before = fleet.unit(host, "engine-tiny", "MainPID")
    if not real:
        fleet.manners(host, token_delay=0.1)
    try:
        with fleet.traffic(host, REAL if real else None) as traffic:
            at_work(traffic)
            fleet.root(host, command)
            assert fleet.unit(host, "engine-tiny", "MainPID") != before
    finally:
        fleet.root(host, "systemctl start farrier-agent")
        until(lambda: fleet.gate(host), 180, "the engine is warm and its gate open again")
    assert traffic.outcomes()["refused"] > 0
    assert_nothing_lost(fleet, host, traffic, counted=not real)
    said = fleet.root(host, "journalctl -q -u engine-tiny -u farrier-agent -n 400 -o cat")
    assert "nothing in flight any more" in said, said[-3000:]


def test_a_drain_that_is_killed_is_carried_on(fleet: Fleet) -> None:
    """ExecStop= is named twice: when the first is killed, the second goes on where it was."""
    host = "gpu03"
    fleet.manners(host, token_delay=0.1)
    with fleet.traffic(host) as traffic:
        at_work(traffic)
        fleet.root(host, "systemctl restart --no-block engine-tiny")
        until(lambda: not fleet.gate(host), 20, "its gate is closed")
        control = fleet.unit(host, "engine-tiny", "ControlPID")
        assert int(control) > 1
        fleet.root(host, f"kill -9 {control}")
        second = until(
            lambda: {fleet.unit(host, "engine-tiny", "ControlPID")} - {control, "0"},
            20,
            "the second ExecStop= runs",
        )
        assert second
        until(lambda: fleet.gate(host), 180, "the engine is warm and its gate open again")
    assert_nothing_lost(fleet, host, traffic)


def test_a_restart_of_nginx_lets_its_workers_finish(fleet: Fleet) -> None:
    """The old ones serve what they have beside the new nginx. A stop of nginx waits for them."""
    host = "gpu02"
    fleet.manners(host, token_delay=0.1)
    engine = fleet.unit(host, "engine-tiny", "InvocationID")
    with fleet.traffic(host) as traffic:
        at_work(traffic)
        began = traffic.now
        fleet.root(host, "systemctl restart nginx")
        assert traffic.now - began < 5, "it waited for the streams"
        assert traffic.at_work("stream") > 0
        until(lambda: traffic.of("whole", since=began + 5), 30, "the new nginx serves")
        fleet.root(host, "systemctl stop nginx")
        assert traffic.at_work("stream") == 0
        assert fleet.root(host, "pgrep -c nginx || true").strip() == "0"
        fleet.root(host, "systemctl start nginx")
    assert_nothing_lost(fleet, host, traffic, listens=False)
    assert fleet.unit(host, "engine-tiny", "InvocationID") == engine


def test_an_upgrade_of_nginx_cuts_nobody(fleet: Fleet) -> None:
    host = "gpu03"
    version = fleet.ssh(host, "dpkg-query -W -f '${Version}' nginx")
    downgrade(fleet, host)
    master = fleet.unit(host, "nginx", "MainPID")
    fleet.manners(host, token_delay=0.1)
    with fleet.traffic(host) as traffic:
        at_work(traffic)
        upgrade(fleet, host)
        assert traffic.at_work("stream") > 0
        upgraded = traffic.now
        until(lambda: traffic.of("whole", since=upgraded), 30, "the new nginx serves")
    assert fleet.ssh(host, "dpkg-query -W -f '${Version}' nginx") == version
    assert fleet.unit(host, "nginx", "MainPID") not in {master, "0"}
    assert_nothing_lost(fleet, host, traffic, listens=False)


def test_the_agents_own_restart_of_a_replica_cuts_nobody(fleet: Fleet) -> None:
    host = "gpu02"
    before = fleet.unit(host, "engine-tiny", "MainPID")
    fleet.manners(host, token_delay=0.1, on_sigterm="hang", workers=1)
    with fleet.traffic(host) as traffic:
        at_work(traffic)
        said = fleet.root(host, "farrier-agent restart tiny --wait --reason 'a test' 2>&1")
        assert fleet.gate(host), said
    assert fleet.unit(host, "engine-tiny", "MainPID") != before
    assert traffic.outcomes()["refused"] > 0
    assert_nothing_lost(fleet, host, traffic)


def test_a_reboot_lets_everybody_finish(fleet: Fleet) -> None:
    host = "gpu03"
    fleet.manners(host, token_delay=0.1)
    with fleet.traffic(host) as traffic:
        at_work(traffic)
        fleet.lab.reboot(host)
        until(lambda: fleet.gate(host), 60, f"{host} opens its gate after its boot")
    assert traffic.outcomes()["refused"] > 0
    assert_nothing_lost(fleet, host, traffic, listens=False)


def test_a_spot_notice_lets_everybody_finish(fleet: Fleet) -> None:
    host = "gpu02"
    fleet.manners(host, token_delay=0.1)
    with cloud(fleet, host) as aws:
        try:
            with fleet.traffic(host) as traffic:
                at_work(traffic)
                aws.reclaims(120)
                until(lambda: fleet.phase(host) == "drained", 60, "the notice drained it")
                status = fleet.status(host)
        finally:
            aws.says(spot=None)
            fleet.root(host, "farrier-agent ready tiny --wait")
    (notice,) = status["notices"]
    assert (notice["cloud"], notice["kind"], notice["drains"]) == ("aws", "spot", True)
    assert "notice" in status["replicas"][0]["asked_by"]
    said = fleet.root(host, "journalctl -q -u farrier-agent -n 100 -o cat")
    assert "notice of aws: spot" in said
    assert traffic.outcomes()["refused"] > 0
    assert_nothing_lost(fleet, host, traffic)


def test_a_forced_restart_says_how_many_it_cut(fleet: Fleet) -> None:
    host = "gpu02"
    fleet.manners(host, token_delay=0.1)
    plan = Plan(streams=7, posts=5, uploads=2, tokens=300)
    with fleet.traffic(host, plan) as traffic:
        at_work(traffic)
        command = "farrier-agent restart tiny --deadline 5 --on-deadline force --wait"
        said = fleet.root(host, f"{command} 2>&1")
    cut = traffic.of("cut")
    assert {one.kind for one in cut} == {"stream", "upload"}
    assert fleet.status(host)["replicas"][0]["last_drain"]["cut"] == len(cut), (said, cut)
    assert len(traffic.faults(fleet.executed(host, traffic))) == len(cut)
