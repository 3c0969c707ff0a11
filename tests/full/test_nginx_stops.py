"""Ends of nginx that are not in order: one that takes too long, one that is killed (2 min)."""

from __future__ import annotations

from tests.roles.converging import Converge
from tests.roles.fleet import Fleet, until
from tests.roles.proof import assert_nothing_lost, at_work
from tests.roles.traffic import Plan


def journal(fleet: Fleet, host: str) -> str:
    return fleet.root(host, "journalctl -q -u nginx -n 30 -o cat")


def test_a_stop_that_takes_too_long_cuts_and_says_how_many(
    fleet: Fleet, converge: Converge
) -> None:
    host = "gpu02"
    data = {host: {**converge.data[host], "nginx_stop_seconds": 6}}
    assert converge(data=data, limit=[host]).returncode == 0
    fleet.manners(host, token_delay=0.1)
    try:
        with fleet.traffic(host, Plan(streams=6, posts=2, uploads=2, tokens=300)) as traffic:
            at_work(traffic)
            until(lambda: traffic.at_work("upload") == 2, 30, "the uploads are answered")
            began = traffic.now
            fleet.root(host, "systemctl stop nginx")
            assert 5 < traffic.now - began < 15
            assert fleet.root(host, "pgrep nginx || true") == ""
            fleet.root(host, "systemctl start nginx")
    finally:
        fleet.root(host, "systemctl start nginx")
        assert converge(limit=[host]).returncode == 0
    cut = traffic.of("cut")
    assert len(cut) == 8
    assert "8 requests in flight are cut" in journal(fleet, host)


def test_workers_whose_master_is_killed_finish_and_make_room(fleet: Fleet) -> None:
    host = "gpu02"
    fleet.manners(host, token_delay=0.1)
    with fleet.traffic(host) as traffic:
        at_work(traffic)
        fleet.root(host, f"kill -9 {fleet.unit(host, 'nginx', 'MainPID')}")
        until(lambda: fleet.unit(host, "nginx", "ActiveState") == "failed", 10, "it is said")
        assert traffic.at_work("stream") > 0
        fleet.root(host, "systemctl start nginx")
        again = traffic.now
        until(lambda: traffic.of("whole", since=again), 60, "the new nginx serves")
    assert "its workers finish the requests that they have and end" in journal(fleet, host)
    assert_nothing_lost(fleet, host, traffic, listens=False)
