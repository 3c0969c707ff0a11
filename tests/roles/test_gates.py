"""Engines that crash, agents that end, hosts that reboot: who closes a gate, and who opens it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.roles.converging import Converge
from tests.roles.fleet import ACCOUNT, Fleet, kill_agent, until


def test_a_crash_closes_the_gate_until_the_engine_answers_again(fleet: Fleet) -> None:
    """gpu03's engine listens for some seconds before it serves, as real ones do."""
    host = "gpu03"
    before = fleet.unit(host, "engine-tiny", "MainPID")
    fleet.root(host, f"kill -9 {before}")
    until(lambda: not fleet.gate(host), 3, "the gate closes with the crash")
    assert fleet.chat(host).status == 503
    until(
        lambda: fleet.unit(host, "engine-tiny", "MainPID") not in {"0", before},
        20,
        "systemd starts the engine again",
    )
    models = "curl -s -o /dev/null -w '%{http_code}' 127.0.0.1:8101/v1/models"
    seen = []

    def opened() -> bool:
        gate = fleet.gate(host)  # looked at first: an engine that answers goes on to
        seen.append((gate, fleet.ssh(host, models, check=False)))
        return gate

    until(opened, 30, "the gate opens by itself")
    assert (False, "503") in seen, "it was never seen loading"
    assert {answer for gate, answer in seen if gate} == {"200"}
    assert fleet.chat(host).status == 200


def test_an_engine_that_comes_back_without_the_agent_is_not_served_cold(fleet: Fleet) -> None:
    host = "gpu03"
    fleet.root(host, "systemctl stop farrier-agent")
    before = fleet.unit(host, "engine-tiny", "MainPID")
    begun = f"grep -c begun {ACCOUNT} || true"
    try:
        fleet.root(host, f"kill -9 {before}")
        models = "curl -s -o /dev/null -w '%{http_code}' 127.0.0.1:8101/v1/models"
        until(lambda: fleet.ssh(host, models, check=False) == "200", 30, "the engine serves again")
        assert fleet.unit(host, "engine-tiny", "MainPID") not in {"0", before}
        executed = int(fleet.root(host, begun))
        assert not fleet.gate(host)
        assert fleet.chat(host).status == 503
        assert int(fleet.root(host, begun)) == executed
    finally:
        fleet.root(host, "systemctl start farrier-agent")
    until(lambda: fleet.gate(host), 30, "the agent warms it up and opens its gate")
    # one short generation and one stream, before anybody else's
    assert int(fleet.root(host, begun)) == executed + 2
    assert fleet.chat(host).status == 200


@dataclass
class Load:
    """What a client saw who never stopped asking."""

    statuses: list[int] = field(default_factory=list)
    streams_cut: int = 0


@contextmanager
def load(fleet: Fleet, host: str) -> Iterator[Load]:
    """Two clients at once on *host* while the block runs: short answers, and streams."""
    seen, end = Load(), threading.Event()

    def short() -> None:
        while not end.is_set():
            seen.statuses.append(fleet.chat(host).status)

    def streams() -> None:
        while not end.is_set():
            answer = fleet.chat(host, stream=True, max_tokens=50)
            seen.statuses.append(answer.status)
            seen.streams_cut += not answer.text.endswith("data: [DONE]\n\n")

    workers = [threading.Thread(target=short), threading.Thread(target=streams)]
    for worker in workers:
        worker.start()
    try:
        yield seen
    finally:
        end.set()
        for worker in workers:
            worker.join()


def stop_and_start(fleet: Fleet, host: str) -> None:
    fleet.root(host, "systemctl stop farrier-agent")
    assert fleet.unit(host, "farrier-agent", "ActiveState") == "inactive"
    assert fleet.gate(host)
    fleet.root(host, "systemctl start farrier-agent")


def restart(fleet: Fleet, host: str) -> None:
    fleet.root(host, "systemctl restart farrier-agent")


@pytest.mark.parametrize("end", [stop_and_start, restart, kill_agent], ids=lambda end: end.__name__)
def test_an_agent_that_ends_touches_no_gate(
    fleet: Fleet, end: Callable[[Fleet, str], None]
) -> None:
    host = "gpu02"
    gate = "stat -c '%i %Z' /run/farrier/open/tiny"  # inode, and when it was last touched
    before = fleet.ssh(host, gate)
    engine = fleet.unit(host, "engine-tiny", "InvocationID")
    with load(fleet, host) as seen:
        end(fleet, host)
        until(lambda: fleet.ready(host), 20, "the agent is ready again")
    assert fleet.ssh(host, gate) == before
    assert fleet.unit(host, "engine-tiny", "InvocationID") == engine
    assert len(seen.statuses) > 3
    assert (set(seen.statuses), seen.streams_cut) == ({200}, 0)


def test_a_converge_under_load_loses_no_request(fleet: Fleet, converge: Converge) -> None:
    """Also one that restarts the agent and reloads nginx, because their data changed."""
    host = "gpu02"
    data = {host: {**converge.data[host], "agent_tick": 1.5, "nginx_max_body": "65m"}}
    with load(fleet, host) as seen:
        run = converge(data=data, limit=[host])
        back = converge(limit=[host])
    assert (run.returncode, back.returncode) == (0, 0), run.last_words()
    expected = ["nginx | Configuration", "nginx | Service", "Agent | Configuration"]
    assert run.changed(host) == back.changed(host) == [*expected, "Agent | Service"]
    assert (set(seen.statuses), seen.streams_cut) == ({200}, 0)


def test_a_host_that_reboots_serves_again_by_itself(fleet: Fleet, converge: Converge) -> None:
    host = "gpu03"
    fleet.lab.reboot(host)
    until(lambda: fleet.gate(host), 60, f"{host} opens its gate after its boot")
    assert fleet.chat(host).status == 200
    assert fleet.ssh(host, "systemctl is-system-running --wait", check=False) == "running\n"
    run = converge(limit=[host])
    assert (run.returncode, run.changed(host)) == (0, []), run.last_words()
