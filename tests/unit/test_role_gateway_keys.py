"""Who gets in, and how much a key may do: the gateway in a real HAProxy."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.agent.host import until
from tests.unit.gateway_hosts import Gateway, Host, gateway, key
from tests.unit.gateway_running import TINY, hosts, running, seen

__all__ = ["hosts", "running"]


def test_nobody_without_a_known_key_gets_further(running: Gateway, hosts: list[Host]) -> None:
    wrong = {"Authorization": "Bearer " + "x" * 24}
    for answer in (
        running.ask(body=TINY, by=None),
        running.ask(body=TINY, by=None, **wrong),
        running.ask(body=TINY, by=None, Authorization=f"Basic {key('alice').key}"),
        running.ask(body=TINY, by=None, X_API_Key=str(key("alice").sha256)),
        running.ask("/v1/models", by=None),
    ):
        assert (answer.status, answer.code) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert not seen(hosts)


def test_a_key_is_asked_for_before_a_byte_of_the_body(running: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        )
        assert client.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_both_headers_carry_a_key_and_neither_gets_to_the_host(
    running: Gateway, hosts: list[Host]
) -> None:
    assert running.ask(body=TINY, by="bob").status == 200
    assert running.ask(body=TINY, by=None, X_API_Key=str(key("alice").key)).status == 200
    requests = [request for host in hosts for request in host.seen]
    assert {request.headers["x-farrier-key"] for request in requests} == {"alice", "bob"}
    for request in requests:
        assert not {"authorization", "x-api-key"} & request.headers.keys()


def test_what_a_client_says_in_our_headers_does_not_count(
    running: Gateway, hosts: list[Host]
) -> None:
    forged = {"X_Farrier_Key": "root", "X_Farrier_Server": "gpu01:x", "X_Farrier_Other": "1"}
    running.ask(body=TINY, **forged)
    (request,) = [request for host in hosts for request in host.seen]
    ours = {name: value for name, value in request.headers.items() if "farrier" in name}
    (name,) = seen(hosts)
    assert ours == {"x-farrier-key": "alice", "x-farrier-server": f"{name}:tiny"}


def test_a_request_keeps_its_name_or_gets_one(running: Gateway, hosts: list[Host]) -> None:
    assert running.ask(body=TINY, X_Request_ID="mine-1").headers["x-request-id"] == "mine-1"
    other = running.ask(body=TINY, X_Request_ID="no good name").headers["x-request-id"]
    assert " " not in other
    assert {request.headers["x-request-id"] for host in hosts for request in host.seen} == {
        "mine-1",
        other,
    }


def test_a_key_may_use_its_models_however_they_are_named(
    running: Gateway, hosts: list[Host]
) -> None:
    qwen = {"model": "Qwen/Qwen3"}
    refused = running.ask(body=qwen, by="bob")
    assert (refused.status, refused.code) == (403, "model_not_allowed")
    assert refused.json()["error"]["message"].endswith("it may use: tiny")
    assert running.ask(body=TINY, by="bob", X_Model="Qwen/Qwen3").status == 403
    assert running.ask(body=TINY, by="bob", X_Farrier_Server="gpu02:qwen").status == 200
    for path in ("/v1/../replicas/qwen/v1/x", "/v1/%2e%2e/replicas/qwen/v1/x", "/v1/..%2fx"):
        assert running.ask(path, body=TINY, by="bob").status == 400
    assert {r.headers["x-farrier-server"][6:] for h in hosts for r in h.seen} == {"tiny"}
    assert running.ask(body=qwen).status == 200


def test_so_many_requests_a_minute(running: Gateway) -> None:
    answers = [running.ask(body=TINY, by="carol") for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].code == "rate_limit_exceeded"
    assert answers[-1].headers["retry-after"] == "20"
    assert running.ask(body=TINY).status == 200


def test_so_many_streams_at_a_time(running: Gateway, hosts: list[Host]) -> None:
    for host in hosts:
        host.hold.clear()
    first, second = running.stream(by="dave"), running.stream(by="dave")
    third = running.ask(body=TINY, by="dave")
    assert (third.status, third.code) == (429, "too_many_streams")
    assert int(third.headers["retry-after"]) > 0
    for host in hosts:
        host.hold.set()
    for stream in (first, second):
        assert stream.read().endswith(b"[DONE]\n\n")
    until(lambda: running.ask(body=TINY, by="dave").status == 200)


def test_open_access_asks_nobody(tmp_path: Path, hosts: list[Host]) -> None:
    with gateway(tmp_path, hosts, open_access=True) as it:
        it.settled()
        assert it.ask(body=TINY, by=None).status == 200
        assert [one["id"] for one in it.ask("/v1/models", by=None).json()["data"]] == [
            "Qwen/Qwen3",
            "tiny",
        ]
        assert it.ask(body={"model": "x"}, by=None).code == "model_not_found"
    assert all("x-farrier-key" not in request.headers for host in hosts for request in host.seen)


def test_without_a_key_in_the_file_nobody_gets_in(tmp_path: Path, hosts: list[Host]) -> None:
    with gateway(tmp_path, hosts, []) as it:
        assert it.ask(body=TINY).status == 401
