"""The role's real HAProxy, what it tells of its requests, and what the agent counts of that."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import pwd
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from farrier_agent.collectors.gateway import GatewayCounts, GatewayLog
from farrier_agent.metrics.page import Extra, gather

from farrier.spec import AgentSettings, ApiKey, HostSpec, Model
from roles.gateway import DEFAULTS, configuration
from roles.gateway.configuration import SHARES, Places, bounds, config_text, maps
from roles.gateway.routes import routes
from tests.agent.full_status import full_status
from tests.agent.host import free_port, until
from tests.proxies import started
from tests.tools import proxy, tool

MODEL, REPLICA = "org/tiny", "gpu01:tiny"
ME = pwd.getpwuid(os.getuid()).pw_name
USAGE = {"prompt_tokens": 11, "total_tokens": 18, "completion_tokens": 7}
ALICE = ApiKey.of("alice", "alice-alice-alice-alice")


class Nginx(BaseHTTPRequestHandler):
    """A stand-in for a host's nginx: the body's ``user`` says what becomes of its request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._whole(200, b"")

    def do_POST(self) -> None:
        manner = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["user"]
        if manner == "gate":
            self._whole(425, b"{}")
        elif manner == "close":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif manner == "whole":
            time.sleep(0.06)
            self._whole(200, json.dumps({"choices": ["é" * 9000], "usage": USAGE}).encode())
        elif manner == "pretend":
            text = json.dumps({"usage": {"prompt_tokens": 99, "completion_tokens": 99}})
            self._whole(200, json.dumps({"choices": [text]}).encode())
        else:
            self._stream(manner)

    def _stream(self, manner: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if manner == "late":
            self.wfile.flush()
            time.sleep(0.4)
        told = b"data: " + json.dumps({"choices": [], "usage": USAGE}).encode() + b"\n\n"
        events = [b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % i for i in range(500)]
        for event in events[: 3 if manner in {"cut", "endless"} else None]:
            self._chunk(event)
        if manner == "endless":
            end = time.monotonic() + 30
            with suppress(OSError):  # until the gateway goes away
                while time.monotonic() < end:
                    self._chunk(events[0])
                    time.sleep(0.02)
        if manner in {"cut", "endless"}:
            self.close_connection = True
            return
        # in pieces of 7 bytes, each a packet of its own: nothing promises that usage is in one
        rest = told + b"data: [DONE]\n\n"
        for at in range(0, len(rest), 7):
            self._chunk(rest[at : at + 7])
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _whole(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


class Hosts(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A gateway that goes away is no news."""


@dataclass
class Told:
    """A running gateway and the agent's collector. ``counts`` are those of this moment."""

    port: int
    counts: Callable[[], GatewayCounts]

    def post(self, user: str, key: str | None = ALICE.key, **body: Any) -> tuple[int, bytes]:
        """A request with that manner; its status and its whole answer."""
        one = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        said = json.dumps({"model": MODEL, "user": user} | body)
        one.request("POST", "/v1/chat/completions", said, headers)
        answer = one.getresponse()
        try:
            return answer.status, answer.read()
        except http.client.IncompleteRead as cut:
            return answer.status, cut.partial
        finally:
            one.close()

    def until(self, **wanted: int) -> GatewayCounts:
        """The counts as soon as so many of alice's requests for the model have these codes."""
        codes = {("alice", code[1:]): count for code, count in wanted.items()}
        until(lambda: self.counts().models[0].codes == codes)
        return self.counts()


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    log = GatewayLog(tmp_path / "gateway.sock", ME, (MODEL,))

    def counts() -> GatewayCounts:
        return asyncio.run_coroutine_threadsafe(log.collect(1.0), loop).result(10)

    counts()
    with Hosts(("127.0.0.1", 0), Nginx) as hosts:
        threading.Thread(target=hosts.serve_forever, daemon=True).start()
        try:
            with _haproxy(tmp_path, hosts.server_address[1]) as port:
                yield Told(port, counts)
        finally:
            hosts.shutdown()
            loop.call_soon_threadsafe(log.close)
            loop.call_soon_threadsafe(loop.stop)


@contextmanager
def _haproxy(directory: Path, host_port: int) -> Iterator[int]:
    """The role's HAProxy before one host: its port. It tells of its requests on gateway.sock."""
    host = HostSpec(
        "gpu01",
        groups=("gpu",),
        address="127.0.0.1",
        nginx_port=host_port,
        agent=AgentSettings(check_port=free_port()),
        models=(Model(MODEL, replica="tiny", source="path:/srv/models/x"),),
    )
    port = free_port()
    settings = DEFAULTS.data() | {
        "gateway_port": port,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_metrics_port": free_port(),
        "gateway_metrics_address": "127.0.0.1",
    }
    places = Places(
        maps=str(directory),
        admin=str(directory / "admin.sock"),
        state=str(directory / "state"),
        user=None,
        logs=(
            "stdout len 8192 format raw",
            f"unix@{directory}/gateway.sock len 8192 format raw",
        ),
    )
    found = routes([host], {})
    for name, text in maps(found, {"alice": ALICE}).items():
        (directory / name).write_text(text)
    for name in SHARES:
        (directory / name).touch()
    shutil.copy(Path(configuration.__file__).parent / "templates" / "usage.lua", directory)
    room = replace(bounds(settings, 4096, 2, shared=False), threads=2)
    config = directory / "haproxy.cfg"
    config.write_text(config_text(found, settings, room, places=places))
    program, environment = proxy("haproxy")
    with (
        (directory / "log").open("wb") as log,
        started([program, "-W", "-f", str(config)], environment, log) as process,
    ):
        until(lambda: process.poll() is not None or Path(places.admin).exists())
        assert process.poll() is None, (directory / "log").read_text()
        yield port


def test_whole_answers_and_streams_are_counted_with_their_tokens(told: Told) -> None:
    before = time.time()
    status, whole = told.post("whole")
    assert (status, json.loads(whole)["usage"]) == (200, USAGE)
    after = time.time()
    status, stream = told.post("stream", stream=True)
    assert (status, stream.count(b"data: ")) == (200, 502)
    assert stream.endswith(
        json.dumps({"choices": [], "usage": USAGE}).encode() + b"\n\ndata: [DONE]\n\n"
    )
    counts = told.until(_200=2)
    one = counts.models[0]
    assert one.tokens == {("alice", "completion"): 14, ("alice", "prompt"): 22}
    assert (one.seconds.cumulative[-1], one.first_byte.cumulative[-1]) == (2, 2)
    assert 0.05 < one.first_byte.sum < 5
    assert one.first_byte.sum <= one.seconds.sum + 0.01
    assert one.incomplete == {"client": 0, "server": 0}
    # HAProxy tells milliseconds
    assert before - 0.01 < counts.last_sent[REPLICA] < time.time()
    assert counts.last_sent[REPLICA] > after - 0.01
    assert counts.lines == {"counted": 2, "refused": 0, "garbled": 0}


def test_the_first_token_is_told_apart_from_the_head_before_it(told: Told, tmp_path: Path) -> None:
    lines = []
    for count, manner in enumerate(("late", "stream", "whole", "close"), 1):
        told.post(manner, stream=True)
        # a line is written after the answer's end: the next request waits for it
        lines.append(json.loads(_log(tmp_path, count)[-1]))
    first = [one["first_token_ms"] for one in lines]
    head = [one["first_byte_ms"] for one in lines]
    assert first[0] >= 400 > head[0], "the head came at once, and the first event after 0.4 s"
    assert 0 <= first[1] < 400
    assert first[2] >= 60, "of a whole answer both are the same"
    assert first[3] == -1, "there was no answer"


def _log(directory: Path, count: int) -> list[str]:
    """The first *count* lines of HAProxy's access log."""

    def lines() -> list[str]:
        return [one for one in (directory / "log").read_text().splitlines() if one[:1] == "{"]

    until(lambda: len(lines()) >= count)
    return lines()[:count]


def test_an_answer_cannot_pretend_to_have_used_tokens(told: Told) -> None:
    assert told.post("pretend")[0] == 200
    assert told.until(_200=1).models[0].tokens == {}


def test_a_stream_that_breaks_off_is_its_servers_and_one_that_is_left_its_clients(
    told: Told,
) -> None:
    assert told.post("cut", stream=True)[1].count(b"data: ") == 3
    assert told.until(_200=1).models[0].incomplete == {"client": 0, "server": 1}
    body = json.dumps({"model": MODEL, "user": "endless", "stream": True})
    with socket.create_connection(("127.0.0.1", told.port), timeout=30) as client:
        client.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-API-Key: {ALICE.key}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        answer = b""
        while b"data: " not in answer:
            answer += client.recv(65536)
    assert told.until(_200=2).models[0].incomplete == {"client": 1, "server": 1}


def test_what_was_not_served_is_counted_by_code_and_in_no_histogram(told: Told) -> None:
    assert told.post("gate")[0] == 503
    assert told.post("close")[0] == 502
    one = told.until(_503=1, _502=1).models[0]
    assert one.retries == 2
    assert one.seconds.cumulative[-1] == one.first_byte.cumulative[-1] == 0
    assert (one.tokens, one.incomplete) == ({}, {"client": 0, "server": 0})


def test_strangers_and_unknown_models_have_no_name(told: Told) -> None:
    assert told.post("whole", key=None)[0] == 401
    assert told.post("whole", model='"}{"<script>' + "x" * 3000)[0] == 404
    until(lambda: told.counts().lines["counted"] == 2)
    unknown = told.counts().models[-1]
    assert (unknown.model, unknown.codes) == ("", {("", "401"): 1, ("alice", "404"): 1})


def test_the_page_has_it_and_promtool_has_nothing_to_say(told: Told, tmp_path: Path) -> None:
    told.post("whole")
    counts = told.until(_200=1)
    page = gather(full_status(), Extra(proc=tmp_path, gateway=counts)).text("text")
    wanted = (
        b'llm_gateway_requests_total{model="org/tiny",key="alice",code="200"} 1\n',
        b'llm_gateway_tokens_total{model="org/tiny",key="alice",kind="prompt"} 11\n',
        b'llm_gateway_time_to_first_byte_seconds_count{model="org/tiny"} 1\n',
        b'llm_gateway_last_request_timestamp_seconds{replica="gpu01:tiny"} ',
    )
    assert [line for line in wanted if line not in page] == []
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=page, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_http2_streams_pass_the_filter_unchanged(told: Told) -> None:
    body = json.dumps({"model": MODEL, "user": "stream", "stream": True})
    done = subprocess.run(
        [
            *("curl", "-sS", "--http2-prior-knowledge", "--max-time", "30", "-d", body),
            *("-H", f"X-API-Key: {ALICE.key}", "-w", "%{http_version}"),
            f"http://127.0.0.1:{told.port}/v1/chat/completions",
        ],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert (done.stdout.count(b"data: "), done.stdout[-3:]) == (502, b"\n\n2")
    assert told.until(_200=1).models[0].tokens == {
        ("alice", "completion"): 7,
        ("alice", "prompt"): 11,
    }
