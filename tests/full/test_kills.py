"""The agent and ExecStop= killed, stopped, upgraded in each phase of a drain (20 min)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.roles.converging import Converge
from tests.roles.fleet import Fleet, kill_agent, until
from tests.roles.proof import assert_nothing_lost, at_work

HOSTS = ("gpu02", "gpu03")
STAGES = ("settling", "counting", "drained")


def record(fleet: Fleet, host: str) -> Any:
    return json.loads(fleet.root(host, "cat /var/lib/farrier/replicas/tiny.json"))


def stage(fleet: Fleet, host: str) -> str:
    """Where the drain is: the phase, and while it drains whether the gate was closed yet."""
    now = record(fleet, host)
    if now["phase"] == "draining":
        return "counting" if now["drain"]["closed"] else "settling"
    phase: str = now["phase"]
    return phase


def kill_program(fleet: Fleet, host: str) -> None:
    program = int(fleet.unit(host, "engine-tiny", "ControlPID"))
    assert program > 1, "the program of ExecStop= does not run"
    fleet.root(host, f"kill -9 {program}")


def kill_both(fleet: Fleet, host: str) -> None:
    """The agent for good, so that the second ExecStop= is alone."""
    program = int(fleet.unit(host, "engine-tiny", "ControlPID"))
    agent = int(fleet.unit(host, "farrier-agent", "MainPID"))
    fleet.root(host, f"systemctl stop farrier-agent & kill -9 {program} {agent}; wait")


Ending = Callable[[Fleet, str], None]
SYSTEMD: list[tuple[str, Ending]] = [
    *((at, end) for at in STAGES[:2] for end in (kill_agent, kill_program, kill_both)),
    ("drained", kill_agent),
]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    ("at", "end"), SYSTEMD, ids=[f"{at}-{end.__name__}" for at, end in SYSTEMD]
)
def test_a_restart_by_systemd_is_carried_on(fleet: Fleet, host: str, at: str, end: Ending) -> None:
    # its end takes until SIGKILL comes, after 5 s
    fleet.manners(host, token_delay=0.1, on_sigterm="hang")
    before = fleet.unit(host, "engine-tiny", "InvocationID")
    starts = int(fleet.root(host, "journalctl -u engine-tiny -o cat | grep -c '^Started '"))
    try:
        with fleet.traffic(host) as traffic:
            at_work(traffic)
            fleet.root(host, "systemctl restart --no-block engine-tiny")
            # *drained* is over as soon as systemd goes on to end the engine
            wanted = {at, "stopped"} if at == "drained" else {at}
            until(lambda: stage(fleet, host) in wanted, 60, f"the drain is {at}")
            gate = fleet.gate(host)
            end(fleet, host)
            assert gate or not fleet.gate(host), "a gate that was closed is open"
            until(
                lambda: (
                    fleet.unit(host, "engine-tiny", "ActiveState") == "active"
                    and fleet.unit(host, "engine-tiny", "InvocationID") != before
                ),
                60,
                "the engine runs again",
            )
            fleet.root(host, "systemctl start farrier-agent")
            until(lambda: fleet.gate(host), 60, "the engine is warm and its gate open again")
            opened = traffic.now
            until(lambda: traffic.of("whole", since=opened), 60, "it serves again")
    finally:
        fleet.root(host, "systemctl start farrier-agent engine-tiny")
    assert_nothing_lost(fleet, host, traffic)
    assert traffic.of("refused")
    after = int(fleet.root(host, "journalctl -u engine-tiny -o cat | grep -c '^Started '"))
    assert after == starts + 1


def stop_and_start(fleet: Fleet, host: str) -> None:
    fleet.root(host, "systemctl stop farrier-agent; sleep 3; systemctl start farrier-agent")


ENDINGS: list[Ending] = [kill_agent, stop_and_start]


@pytest.mark.parametrize("end", ENDINGS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("at", STAGES)
@pytest.mark.parametrize("host", HOSTS)
def test_a_persons_drain_is_carried_on_and_never_returns_by_itself(
    fleet: Fleet, host: str, at: str, end: Ending
) -> None:
    fleet.manners(host, token_delay=0.1)
    engine = fleet.unit(host, "engine-tiny", "InvocationID")
    try:
        with fleet.traffic(host) as traffic:
            at_work(traffic)
            fleet.root(host, "farrier-agent drain tiny --reason 'a test'")
            until(lambda: stage(fleet, host) == at, 60, f"the drain is {at}")
            gate = fleet.gate(host)
            end(fleet, host)
            assert gate or not fleet.gate(host), "a gate that was closed is open"
            until(lambda: stage(fleet, host) == "drained", 60, "it is carried on")
            assert not fleet.gate(host)
            assert traffic.at_work("stream") == traffic.at_work("upload") == 0
            by = fleet.status(host)["replicas"][0]["asked_by"]
            fleet.root(host, "farrier-agent ready tiny --wait")
            assert fleet.gate(host)
            opened = traffic.now
            until(lambda: traffic.of("whole", since=opened), 60, "it serves again")
    finally:
        fleet.root(host, "farrier-agent ready tiny --wait", check=False)
    assert_nothing_lost(fleet, host, traffic)
    assert traffic.of("refused")
    assert by.startswith("root")
    assert fleet.unit(host, "engine-tiny", "InvocationID") == engine


@pytest.mark.parametrize("at", STAGES[:2])
def test_a_converge_that_restarts_the_agent_lets_a_drain_go_on(
    fleet: Fleet, converge: Converge, at: str
) -> None:
    """As an upgrade does it: the unit of the agent is restarted, its files exchanged."""
    host = "gpu03"
    fleet.manners(host, token_delay=0.2)
    data = {host: {**converge.data[host], "agent_tick": 1.5}}
    with fleet.traffic(host) as traffic:
        at_work(traffic)
        fleet.root(host, "farrier-agent drain tiny")
        until(lambda: stage(fleet, host) == at, 60, f"the drain is {at}")
        run = converge(data=data, limit=[host])
        assert "Agent | Service" in run.changed(host), run.last_words()
        until(lambda: stage(fleet, host) == "drained", 60, "it is carried on")
        fleet.root(host, "farrier-agent ready tiny --wait")
        opened = traffic.now
        until(lambda: traffic.of("whole", since=opened), 60, "it serves again")
    assert_nothing_lost(fleet, host, traffic)
    assert converge(limit=[host]).returncode == 0


@pytest.mark.parametrize("at", STAGES[:2])
def test_a_restart_whose_agent_dies_stays_drained_until_it_is_asked_for_again(
    fleet: Fleet, at: str
) -> None:
    host = "gpu02"
    fleet.manners(host, token_delay=0.1)
    engine = fleet.unit(host, "engine-tiny", "InvocationID")
    argv = ["ssh", "-F", str(fleet.lab.ssh_config), host]
    with fleet.traffic(host) as traffic:
        at_work(traffic)
        with subprocess.Popen([*argv, "sudo farrier-agent restart tiny --wait"]) as asked:
            until(lambda: stage(fleet, host) == at, 60, f"the drain is {at}")
            kill_agent(fleet, host)
            assert asked.wait(timeout=60) == 1
        until(lambda: stage(fleet, host) == "drained", 60, "it is carried on")
        assert fleet.unit(host, "engine-tiny", "InvocationID") == engine
        fleet.root(host, "farrier-agent restart tiny --wait")
        assert fleet.gate(host)
        opened = traffic.now
        until(lambda: traffic.of("whole", since=opened), 60, "it serves again")
    assert fleet.unit(host, "engine-tiny", "InvocationID") != engine
    assert_nothing_lost(fleet, host, traffic)
