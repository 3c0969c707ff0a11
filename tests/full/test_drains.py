"""Every way to stop or restart, against engines with every manner, under load (35 min)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.roles.cloud import cloud
from tests.roles.fleet import Fleet, until
from tests.roles.nginx_versions import downgrade, upgrade
from tests.roles.proof import assert_nothing_lost, at_work
from tests.roles.traffic import Plan, Traffic

MANNERS: Mapping[str, Mapping[str, Any]] = {
    "drains": {"on_sigterm": "drain"},
    "cuts": {"on_sigterm": "cut"},
    "ends with abort": {"on_sigterm": "abort"},
    "closes": {"on_sigterm": "close"},
    "answers 500": {"on_sigterm": "500"},
    "answers 503": {"on_sigterm": "503"},
    "hangs": {"on_sigterm": "hang"},
    "ignores": {"on_sigterm": "ignore"},
    "has workers": {"on_sigterm": "cut", "workers": 3},
    "has no metrics": {"on_sigterm": "abort", "metrics": False},
}
"""What SIGTERM does to the stand-in (tests/fakes/engine/manners.py)."""
WORST: Mapping[str, Any] = {"on_sigterm": "hang", "workers": 2}
"""vLLM's own manner, and workers that only SIGKILL ends."""
REAL = Plan(tokens=250, posts=10, pause=2.0)
"""For the real engine: some hundred tokens a second, for all of its streams together."""


def restart_engine(fleet: Fleet, host: str, traffic: Traffic) -> None:
    fleet.root(host, "systemctl restart engine-tiny")


def stop_engine(fleet: Fleet, host: str, traffic: Traffic) -> None:
    fleet.root(host, "systemctl stop engine-tiny")
    state = fleet.unit(host, "engine-tiny", "ActiveState")
    assert state in {"inactive", "failed"}  # SIGKILL after SIGTERM is a failure to systemd
    assert fleet.root(host, "pgrep -f '[s]tandin.py' || true") == ""
    assert fleet.chat(host).status == 503
    fleet.root(host, "systemctl start engine-tiny")


def restart_nginx(fleet: Fleet, host: str, traffic: Traffic) -> None:
    for _ in range(3):
        began = traffic.now
        fleet.root(host, "systemctl restart nginx")
        until(lambda: traffic.of("whole", since=began), 60, "the new nginx serves")  # noqa: B023


def stop_nginx(fleet: Fleet, host: str, traffic: Traffic) -> None:
    fleet.root(host, "systemctl stop nginx")
    assert fleet.root(host, "pgrep nginx || true") == ""
    fleet.root(host, "systemctl start nginx")


def upgrade_nginx(fleet: Fleet, host: str, traffic: Traffic) -> None:
    """To another version and back; each is an upgrade to dpkg's programs, and to nginx."""
    downgrade(fleet, host)
    began = traffic.now
    until(lambda: traffic.of("whole", since=began), 60, "the other nginx serves")
    upgrade(fleet, host)


def upgrade_only_the_program(fleet: Fleet, host: str, traffic: Traffic) -> None:
    """Only nginx's own: two masters, one of them systemd's. Then a reload and a restart."""
    fleet.root(host, "DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --reinstall nginx")
    masters = "pgrep -c -f '^nginx: master'"
    assert fleet.root(host, masters).strip() == "2"
    fleet.root(host, "systemctl reload nginx")
    began = traffic.now
    until(lambda: traffic.of("whole", since=began), 60, "the other nginx serves")
    fleet.root(host, "systemctl restart nginx")
    assert fleet.root(host, masters).strip() == "1"


def needrestart(fleet: Fleet, host: str, traffic: Traffic) -> None:
    """What needrestart runs for services whose libraries were replaced."""
    fleet.root(host, "systemctl restart nginx.service farrier-agent.service engine-tiny.service")


def verb(fleet: Fleet, host: str, traffic: Traffic) -> None:
    fleet.root(host, "farrier-agent restart tiny --wait")
    assert fleet.gate(host)


def reboot(fleet: Fleet, host: str, traffic: Traffic) -> None:
    fleet.lab.reboot(host)


def spot_notice(fleet: Fleet, host: str, traffic: Traffic) -> None:
    with cloud(fleet, host) as aws:
        aws.reclaims(120)
        until(lambda: fleet.phase(host) == "drained", 110, "the notice drained it")
        assert traffic.at_work("stream") == traffic.at_work("upload") == 0
        aws.says(spot=None)
        fleet.root(host, "farrier-agent ready tiny --wait")


Action = Callable[[Fleet, str, Traffic], None]
REFUSES_CONNECTIONS = {
    restart_nginx,
    stop_nginx,
    upgrade_nginx,
    upgrade_only_the_program,
    needrestart,
    reboot,
}
CLOSES_THE_GATE = {restart_engine, stop_engine, needrestart, verb, reboot, spot_notice}


def prove(fleet: Fleet, host: str, action: Action, manners: Mapping[str, Any]) -> None:
    real = host == "gpu01"
    if not real:
        fleet.manners(host, token_delay=0.1, **manners)
    try:
        with fleet.traffic(host, REAL if real else None) as traffic:
            at_work(traffic)
            action(fleet, host, traffic)
            until(lambda: fleet.gate(host), 240, "its gate is open again")
            opened = traffic.now
            until(lambda: traffic.of("whole", since=opened), 60, "it serves again")
    finally:
        fleet.root(host, "systemctl start engine-tiny nginx farrier-agent")
    assert_nothing_lost(
        fleet, host, traffic, counted=not real, listens=action not in REFUSES_CONNECTIONS
    )
    assert bool(traffic.of("refused")) == (action in CLOSES_THE_GATE)


@pytest.mark.parametrize("action", [restart_engine, stop_engine], ids=lambda it: it.__name__)
@pytest.mark.parametrize("manner", MANNERS)
def test_a_stop_by_systemd(fleet: Fleet, action: Action, manner: str) -> None:
    # one of them with the systemd of Debian 12, the other with that of Debian 13
    turn = list(MANNERS).index(manner) + (action is stop_engine)
    prove(fleet, ("gpu02", "gpu03")[turn % 2], action, MANNERS[manner])


@pytest.mark.parametrize("host", ["gpu02", "gpu03"], ids=["bookworm", "trixie"])
@pytest.mark.parametrize(
    "action",
    [
        *(restart_nginx, stop_nginx, upgrade_nginx, upgrade_only_the_program, needrestart),
        *(verb, reboot, spot_notice),
    ],
    ids=lambda it: it.__name__,
)
def test_the_other_ways_with_the_worst_manner(fleet: Fleet, host: str, action: Action) -> None:
    prove(fleet, host, action, WORST)


@pytest.mark.parametrize(
    "action",
    [stop_engine, restart_nginx, upgrade_nginx, verb, reboot, spot_notice, restart_engine],
    ids=lambda it: it.__name__,
)
def test_every_way_with_the_real_vllm(fleet: Fleet, action: Action) -> None:
    prove(fleet, "gpu01", action, {})
