"""The gateway's configuration in a real HAProxy, on loopback, before stand-ins for hosts."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roles.gateway import DEFAULTS
from tests.agent.host import until
from tests.unit.gateway_hosts import Answer, Gateway, Host, gateway, key

KEYS = [
    key("alice"),
    key("bob", models=("tiny",)),
    key("carol", requests_per_minute=3),
    key("dave", streams=2),
]
TINY = {"model": "tiny"}
LIMIT = 64 * 1024


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """gpu01 and gpu02 serve tiny, gpu02 a second model."""
    both = [Host("gpu01"), Host("gpu02", models={"tiny": "tiny", "qwen": "Qwen/Qwen3"})]
    yield both
    for one in both:
        one.end()


@pytest.fixture
def running(tmp_path: Path, hosts: list[Host]) -> Iterator[Gateway]:
    """A gateway before them with a small limit of bodies."""
    with gateway(tmp_path, hosts, KEYS, gateway_max_body_kib=LIMIT // 1024) as it:
        it.settled()
        yield it


def seen(hosts: list[Host]) -> Counter[str]:
    """How many requests each host executed."""
    return Counter({host.name: len(host.seen) for host in hosts if host.seen})


# ---- keys ------------------------------------------------------------------------------------


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


# ---- models ----------------------------------------------------------------------------------


def test_the_models_are_those_that_serve_and_that_the_key_may_use(
    running: Gateway, hosts: list[Host]
) -> None:
    def listed(by: str) -> list[str]:
        return [one["id"] for one in running.ask("/v1/models", by=by).json()["data"]]

    assert listed("alice") == ["Qwen/Qwen3", "tiny"]
    assert listed("bob") == ["tiny"]
    assert running.ask("/v1/models/Qwen/Qwen3").json()["id"] == "Qwen/Qwen3"
    assert running.ask("/v1/models/Qwen%2FQwen3").json()["id"] == "Qwen/Qwen3"
    assert running.ask("/v1/models/Qwen/Qwen3", by="bob").status == 403
    assert running.ask("/v1/models/none").status == 404
    hosts[1].takes = False
    until(lambda: listed("alice") == ["tiny"])
    assert running.ask("/v1/models/Qwen/Qwen3").code == "no_replica_ready"
    assert not seen(hosts)


def test_an_unknown_model_is_answered_with_those_that_there_are(running: Gateway) -> None:
    answer = running.ask(body={"model": 'no"such\\one'})
    assert (answer.status, answer.code) == (404, "model_not_found")
    message = answer.json()["error"]["message"]
    assert 'no"such\\one' in message
    assert message.endswith("Qwen/Qwen3, tiny")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"no json",
        b'{"model":""}',
        b'{"model":null}',
        b"\xef\xbb\xbf" + b'{"model":"tiny"}',
        b"[" * 60 + b'{"model":"tiny"}',
        b"\x1f\x8b\x08\x00",
    ],
    ids=["empty", "no-model", "text", "no-name", "null", "bom", "deep", "gzip"],
)
def test_a_body_without_a_readable_model_says_how_to_name_it(running: Gateway, body: bytes) -> None:
    answer = running.ask(body=body)
    assert (answer.status, answer.code) == (400, "model_missing")
    assert "X-Model" in answer.json()["error"]["message"]
    assert running.ask(body=body, X_Model="tiny").status == 200


def test_the_model_is_found_behind_a_long_prompt(tmp_path: Path, hosts: list[Host]) -> None:
    body = json.dumps({"prompt": "x" * 300_000, "model": "tiny"}).encode()
    with gateway(tmp_path, hosts, KEYS) as it:
        it.settled()
        assert it.ask(body=body).status == 200
    assert [request.body for host in hosts for request in host.seen] == [body]


def test_other_paths_are_no_endpoint(running: Gateway, hosts: list[Host]) -> None:
    for path in ("/", "/metrics", "/replicas/tiny/v1/chat/completions", "/v2/x"):
        assert running.ask(path, body=TINY).code == "not_found"
    assert running.ask("/farrier-alive", by=None).status == 200
    assert not seen(hosts)


# ---- bodies ----------------------------------------------------------------------------------


def sized(size: int) -> bytes:
    """A body of *size* bytes with the model at its end."""
    frame = b'{"prompt":"","model":"tiny"}'
    return frame.replace(b'""', b'"' + b"x" * (size - len(frame)) + b'"')


def curl(port: int, body: bytes, *options: str, check: bool = True) -> tuple[int, str]:
    """Status and code of a POST by curl, which speaks HTTP/2 as well; 0 where it saw no answer."""
    done = subprocess.run(
        [
            *("curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", "--data-binary", "@-"),
            *("-H", f"Authorization: Bearer {key('alice').key}", *options),
            f"http://127.0.0.1:{port}/v1/chat/completions",
        ],
        input=body,
        capture_output=True,
        check=check,
    )
    answer, _, status = done.stdout.decode().rpartition("\n")
    return int(status), json.loads(answer or "{}").get("error", {}).get("code", "")


class Tap:
    """A way to the gateway on which what it answers is kept, byte by byte.

    HAProxy ends an HTTP/2 request that it refused early with RST_STREAM after the whole answer.
    curl 7.88 takes the reset for the answer, so here the answer itself is looked at.
    """

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._to = port
        self.heard = b""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        gateway = socket.create_connection(("127.0.0.1", self._to))
        threading.Thread(target=self._send, args=(client, gateway), daemon=True).start()
        with suppress(OSError):
            while heard := gateway.recv(65536):
                self.heard += heard
                client.sendall(heard)

    @staticmethod
    def _send(client: socket.socket, gateway: socket.socket) -> None:
        with suppress(OSError):
            while said := client.recv(65536):
                gateway.sendall(said)

    def frames(self) -> list[tuple[int, int, bytes]]:
        """The frames of HTTP/2 (RFC 9113, 4.1): type, flags, payload."""
        found, rest = [], self.heard
        while len(rest) >= 9:
            end = 9 + int.from_bytes(rest[:3], "big")
            found.append((rest[3], rest[4], rest[9:end]))
            rest = rest[end:]
        return found

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize(
    "options",
    [("--http1.1",), ("--http1.1", "-H", "Transfer-Encoding: chunked")],
    ids=["h1", "h1-chunked"],
)
def test_a_body_over_the_limit_is_413_and_one_at_it_is_served(
    running: Gateway, hosts: list[Host], options: tuple[str, ...]
) -> None:
    assert curl(running.port, sized(LIMIT), *options) == (200, "")
    for size in (LIMIT + 1, 2 * LIMIT, 20 * LIMIT):
        assert curl(running.port, sized(size), *options) == (413, "request_too_large"), size
    assert [request.body for host in hosts for request in host.seen] == [sized(LIMIT)]


@pytest.mark.parametrize("options", [(), ("-H", "Content-Length:")], ids=["h2", "h2-no-length"])
def test_it_is_the_same_with_http_2(
    running: Gateway, hosts: list[Host], options: tuple[str, ...]
) -> None:
    http_2 = ("--http2-prior-knowledge", *options)
    assert curl(running.port, sized(LIMIT), *http_2) == (200, "")
    for size in (LIMIT + 1, 2 * LIMIT, 20 * LIMIT):
        tap = Tap(running.port)
        status, code = curl(tap.port, sized(size), *http_2, check=False)
        assert (status, code) in {(413, "request_too_large"), (0, "")}
        until(lambda: b"request_too_large" in tap.heard)  # noqa: B023
        kinds = [
            (kind, payload) for kind, flags, payload in tap.frames() if kind == 0 and flags & 1
        ]
        tap.close()
        assert len(kinds) == 1, "one DATA frame with END_STREAM"
        assert json.loads(kinds[0][1])["error"]["code"] == "request_too_large"
    assert [request.body for host in hosts for request in host.seen] == [sized(LIMIT)]


def test_tiny_chunks_are_measured_by_what_they_hold(running: Gateway, hosts: list[Host]) -> None:
    def chunks(body: bytes) -> bytes:
        connection = socket.create_connection(("127.0.0.1", running.port), timeout=20)
        with connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                b"Transfer-Encoding: chunked\r\nAuthorization: Bearer "
                + str(key("alice").key).encode()
                + b"\r\n\r\n"
            )
            pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
            connection.sendall(pieces)
            return connection.recv(200)

    assert chunks(sized(LIMIT)).startswith(b"HTTP/1.1 200 ")
    assert [request.body for host in hosts for request in host.seen] == [sized(LIMIT)]
    assert chunks(sized(LIMIT + 1)).startswith(b"HTTP/1.1 413 ")


def test_a_larger_body_goes_through_with_its_model_in_the_header(
    running: Gateway, hosts: list[Host]
) -> None:
    body = sized(40 * LIMIT)
    assert running.ask(body=body, X_Model="tiny").status == 200
    assert [request.body for host in hosts for request in host.seen] == [body]


# ---- replicas --------------------------------------------------------------------------------


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

        homes = {session: where(session) for session in range(20)}
        assert set(homes.values()) == {"gpu01", "gpu02", "gpu03"}
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


# ---- reloads, logs, metrics ------------------------------------------------------------------


def test_a_reload_under_load_loses_nothing_and_keeps_the_drained_drained(
    running: Gateway, hosts: list[Host]
) -> None:
    hosts[0].takes = False
    until(lambda: running.servers()["tiny", "gpu01:tiny"] == "DRAIN (agent)")
    hosts[0].takes = None  # the agent hangs
    over = threading.Event()
    kept_alive = 4

    def posts(_: int) -> Counter[int]:
        statuses: Counter[int] = Counter()
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
        headers = {"Authorization": f"Bearer {key('alice').key}"}
        while not over.is_set():
            connection.request("POST", "/v1/chat/completions", b'{"model":"tiny"}', headers)
            answer = connection.getresponse()
            answer.read()
            statuses[answer.status] += 1
        connection.close()
        return statuses

    hosts[1].hold.clear()
    streams = [running.stream() for _ in range(5)]
    hosts[1].hold.set()
    hosts[1].hold.clear()
    with ThreadPoolExecutor(kept_alive) as pool:
        loops = [pool.submit(posts, number) for number in range(kept_alive)]
        hosts[1].hold.set()
        try:
            for _ in range(3):
                before = len(hosts[1].seen)
                running.reload()
                until(lambda: len(hosts[1].seen) >= before + 100)  # noqa: B023
        finally:
            over.set()
        statuses = sum((loop.result() for loop in loops), Counter[int]())
    assert statuses.keys() == {200}
    assert not hosts[0].seen
    assert len(hosts[1].seen) == statuses[200] + len(streams)
    assert all(stream.read().endswith(b"[DONE]\n\n") for stream in streams)


def test_keys_change_with_a_reload_that_drops_nothing(
    running: Gateway, hosts: list[Host], tmp_path: Path
) -> None:
    hosts[0].hold.clear()
    hosts[1].hold.clear()
    stream = running.stream(by="bob")
    keys = (tmp_path / "keys.map").read_text().splitlines()
    keys = [line for line in keys if not line.endswith(" bob")] + [f"{key('erin').sha256} erin"]
    (tmp_path / "keys.map").write_text("\n".join([*keys, ""]))
    allowed = (tmp_path / "allowed.map").read_text()
    (tmp_path / "allowed.map").write_text(f"{allowed}erin|tiny yes\n")
    running.reload()
    for host in hosts:
        host.hold.set()
    assert running.ask(body=TINY, by="erin").status == 200
    assert running.ask(body=TINY, by="bob").status == 401
    assert stream.read().endswith(b"[DONE]\n\n")


def test_a_reload_takes_ports_from_the_configuration(running: Gateway, hosts: list[Host]) -> None:
    hosts[1].takes = False
    until(lambda: running.servers()["tiny", "gpu02:tiny"] == "DRAIN (agent)")
    hosts[1].takes = None
    moved = Host("gpu01")
    text = running.config.read_text()
    for before, after in ((hosts[0].port, moved.port), (hosts[0].check_port, moved.check_port)):
        text = text.replace(str(before), str(after))
    running.config.write_text(text)
    running.reload()
    for _ in range(4):
        assert running.ask(body=TINY).status == 200
    until(lambda: moved.asked)
    assert len(moved.seen) == 4
    assert not hosts[0].seen
    assert not hosts[1].seen, "its state was kept"
    moved.end()


def test_the_log_tells_of_each_request_and_holds_no_key(
    running: Gateway, hosts: list[Host]
) -> None:
    served: list[Answer] = [
        running.ask(body=TINY, X_Request_ID="one"),
        running.ask(body={"model": 'x"y'}, X_Request_ID="two"),
        running.ask('/v1/"quoted"', body=b"", by=None, X_Request_ID="three"),
    ]
    until(lambda: len(running.log()) == 3)
    one, two, three = running.log()
    assert [line["status"] for line in (one, two, three)] == [a.status for a in served]
    assert one.keys() == {
        *("time", "model", "replica", "key", "client", "method", "path", "status", "termination"),
        *("request_ms", "queue_ms", "connect_ms", "first_byte_ms", "total_ms"),
        *("bytes", "request_bytes", "retries", "request_id"),
        *("prompt_tokens", "completion_tokens"),
    }
    (name,) = seen(hosts)
    assert (one["model"], one["replica"], one["key"]) == ("tiny", f"{name}:tiny", "alice")
    assert (one["prompt_tokens"], one["completion_tokens"]) == (7, 3)
    assert (one["request_id"], one["path"]) == ("one", "/v1/chat/completions")
    assert (two["model"], two["replica"], two["prompt_tokens"]) == ('x"y', "-", -1)
    assert (three["status"], three["key"]) == (401, "-")
    assert str(key("alice").key) not in (running.directory / "log").read_text()


def test_haproxys_own_metrics_have_their_page(running: Gateway) -> None:
    url = f"http://127.0.0.1:{running.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        page = answer.read().decode()
    assert 'haproxy_server_status{proxy="tiny",server="gpu01:tiny",state="UP"} 1' in page
