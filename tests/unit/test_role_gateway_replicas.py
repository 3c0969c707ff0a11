"""Which replica gets a request, and what is tried again: the gateway in a real HAProxy."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roles.gateway import DEFAULTS
from tests.agent.host import until
from tests.unit.gateway_hosts import Gateway, Host, gateway
from tests.unit.gateway_running import KEYS, TINY, hosts, running, seen

__all__ = ["hosts", "running"]


def test_a_closed_gate_is_tried_elsewhere_with_the_same_request(
    running: Gateway, hosts: list[Host]
) -> None:
    hosts[0].gate = "425"
    body = json.dumps({"prompt": "x" * 20_000, "model": "tiny"}).encode()
    for _ in range(8):
        assert running.ask(body=body).status == 200
    assert seen(hosts) == {"gpu02": 8}
    for request in hosts[1].seen:
        assert request.headers["x-farrier-server"] == "gpu02:tiny"
        assert request.body == body
    until(lambda: len(running.log()) == 8)
    assert any(line["retries"] == "+1" for line in running.log())


def test_all_gates_closed_is_503_and_was_executed_by_nobody(
    running: Gateway, hosts: list[Host]
) -> None:
    for host in hosts:
        host.gate = "425"
    answer = running.ask(body=TINY)
    assert (answer.status, answer.code) == (503, "no_replica_ready")
    assert answer.headers["retry-after"] == "5"
    assert not seen(hosts)


@pytest.mark.parametrize(("gate", "status"), [("503", 503), ("502", 502), ("429", 429)])
def test_what_a_replica_answered_is_not_tried_again(
    running: Gateway, hosts: list[Host], gate: str, status: int
) -> None:
    hosts[0].gate = hosts[1].gate = gate
    answer = running.ask(body=TINY)
    assert answer.status == status
    assert answer.json()["error"]["message"] == "the gate"


def test_a_request_without_an_answer_was_executed_once(running: Gateway, hosts: list[Host]) -> None:
    hosts[0].gate = hosts[1].gate = "close"
    answer = running.ask(body=TINY)
    assert (answer.status, answer.code) == (502, "engine_failed")
    assert sum(seen(hosts).values()) == 1


def test_a_host_that_refuses_connections_is_passed_over(
    running: Gateway, hosts: list[Host]
) -> None:
    hosts[0].refuse()
    for _ in range(6):
        assert running.ask(body=TINY).status == 200
    assert seen(hosts) == {"gpu02": 6}


def test_an_agents_drain_takes_a_replica_out_and_leaves_its_streams(
    running: Gateway, hosts: list[Host]
) -> None:
    hosts[0].hold.clear()
    streams = [running.stream() for _ in range(4)]
    hosts[0].takes = False
    until(lambda: running.servers()["tiny", "gpu01:tiny"] == "DRAIN (agent)")
    before = len(hosts[0].seen)
    assert before
    for _ in range(6):
        assert running.ask(body=TINY).status == 200
    assert len(hosts[0].seen) == before
    hosts[0].hold.set()
    for stream in streams:
        assert stream.read().endswith(b"[DONE]\n\n")
    hosts[0].takes = True
    until(lambda: running.ask(body=TINY).json()["from"] == "gpu01")


def test_nobody_ready_is_503_at_once(running: Gateway, hosts: list[Host]) -> None:
    for host in hosts:
        host.takes = False
    until(lambda: set(running.servers().values()) == {"DRAIN (agent)"})
    began = time.monotonic()
    answer = running.ask(body=TINY)
    assert time.monotonic() - began < DEFAULTS.data()["gateway_queue_seconds"] / 2
    assert (answer.status, answer.code) == (503, "no_replica_ready")
    assert answer.headers["retry-after"] == "5"
    assert running.ask("/v1/models").json()["data"] == []


def test_one_host_whose_nginx_fails_its_check_gets_nothing(tmp_path: Path) -> None:
    hosts = [Host(f"gpu0{number}") for number in range(1, 4)]
    with gateway(tmp_path, hosts, KEYS) as it:
        it.settled()
        hosts[0].alive = False
        until(lambda: it.servers()["tiny", "gpu01:tiny"].startswith("DOWN"))
        for _ in range(9):
            assert it.ask(body=TINY).status == 200
        assert "gpu01" not in seen(hosts)
    for host in hosts:
        host.end()


def test_where_most_fail_their_check_together_all_are_tried_but_the_drained(
    tmp_path: Path,
) -> None:
    hosts = [Host(f"gpu0{number}") for number in range(1, 4)]
    with gateway(tmp_path, hosts, KEYS) as it:
        it.settled()
        hosts[2].takes = False
        until(lambda: it.servers()["_every:tiny", "gpu03:tiny"] == "DRAIN (agent)")
        for host in hosts:
            host.alive = False
        until(lambda: it.servers()["tiny", "gpu01:tiny"].startswith("DOWN"))
        until(lambda: it.servers()["tiny", "gpu02:tiny"].startswith("DOWN"))
        for _ in range(8):
            assert it.ask(body=TINY).status == 200
        assert seen(hosts).keys() == {"gpu01", "gpu02"}
    for host in hosts:
        host.end()


def test_the_replica_with_the_fewest_requests_gets_the_next(
    running: Gateway, hosts: list[Host]
) -> None:
    for host in hosts:
        host.hold.clear()
    streams = [running.stream() for _ in range(10)]
    assert seen(hosts) == {"gpu01": 5, "gpu02": 5}
    for host in hosts:
        host.hold.set()
    assert all(stream.read().endswith(b"[DONE]\n\n") for stream in streams)


def test_more_than_replicas_take_wait_and_no_more_than_may(tmp_path: Path) -> None:
    host = Host("gpu01")
    data: dict[str, Any] = {
        "gateway_replica_requests": 2,
        "gateway_queue_requests": 3,
        "gateway_queue_seconds": 3,
    }
    with gateway(tmp_path, [host], KEYS, **data) as it, ThreadPoolExecutor(8) as pool:
        it.settled()
        host.hold.clear()
        asked = [pool.submit(it.ask, body=TINY) for _ in range(8)]
        until(lambda: sum(one.done() for one in asked) >= 3)
        full = [one.result() for one in asked if one.done() and one.result().status == 429]
        assert len(full) == 3
        assert {one.code for one in full} == {"saturated"}
        until(lambda: sum(one.done() for one in asked) == 6)
        late = [one.result() for one in asked if one.done() and one.result().status == 503]
        assert len(late) == 3
        assert {(one.code, one.headers["retry-after"]) for one in late} == {("saturated", "5")}
        host.hold.set()
        assert Counter(one.result().status for one in asked) == {200: 2, 429: 3, 503: 3}
    assert len(host.seen) == 2
    host.end()


def test_no_more_requests_than_memory_has_room_for(tmp_path: Path, hosts: list[Host]) -> None:
    with gateway(tmp_path, hosts, KEYS, limits=lambda it: replace(it, requests=2)) as it:
        it.settled()
        for host in hosts:
            host.hold.clear()
        streams = [it.stream(), it.stream()]
        third = it.ask(body=TINY)
        assert (third.status, third.code) == (503, "saturated")
        for host in hosts:
            host.hold.set()
        assert all(stream.read().endswith(b"[DONE]\n\n") for stream in streams)


def test_a_session_stays_on_its_replica(tmp_path: Path) -> None:
    hosts = [Host(f"gpu0{number}") for number in range(1, 4)]
    with gateway(tmp_path, hosts, KEYS, gateway_affinity="header X-Session-ID") as it:
        it.settled()

        def where(session: int) -> str:
            return str(it.ask(body=TINY, X_Session_ID=f"s{session}").json()["from"])

        # HAProxy tells a server's state a moment before it gives it its share
        until(lambda: len({where(session) for session in range(20)}) == len(hosts))
        homes = {session: where(session) for session in range(20)}
        assert {session: where(session) for session in range(20)} == homes
        hosts[0].takes = False
        until(lambda: it.servers()["tiny", "gpu01:tiny"] == "DRAIN (agent)")
        for session, home in homes.items():
            assert where(session) == home or home == "gpu01"
    for host in hosts:
        host.end()


def test_a_replica_gets_the_share_that_it_is_given_and_no_more(tmp_path: Path) -> None:
    hosts = [Host(f"gpu0{number}") for number in range(1, 4)]
    with gateway(tmp_path, hosts, KEYS) as it:
        it.settled()

        def shares(count: int) -> Counter[str]:
            before = seen(hosts)
            with ThreadPoolExecutor(4) as pool:
                assert {
                    one.status for one in pool.map(lambda _: it.ask(body=TINY), range(count))
                } == {200}
            return seen(hosts) - before

        it.share("gpu01:tiny", 20)
        assert 40 < shares(400)["gpu01"] < 130
        it.reload()
        assert 40 < shares(400)["gpu01"] < 130
        it.share("gpu01:tiny", 0)
        assert shares(30)["gpu01"] == 0
        it.share("gpu01:tiny", 50)
        hosts[0].gate = "425"
        assert shares(30)["gpu01"] == 0
        hosts[0].gate = "open"
        it.share("gpu01:tiny", 100)
        until(lambda: it.servers()["tiny", "gpu01:tiny"] == "UP")
        assert 60 < shares(300)["gpu01"] < 160
        hosts[0].takes = False
        until(lambda: it.servers()["tiny", "gpu01:tiny"] == "DRAIN (agent)")
    for host in hosts:
        host.end()
