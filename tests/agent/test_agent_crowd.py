"""Clients that say nothing, too much or nonsense, to everything that the running agent listens on.

And its sources: an engine and a bus that answer nonsense.
"""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from farrier_agent.control.protocol import Done, Drain, Ready, Report, Status
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.agent.host import PROMPT, Host, replica, until
from tests.agent.replicas import serving

CROWD = 200
INPUTS = ("http", "check", "control")
ONCE = {"suppress_health_check": [HealthCheck.function_scoped_fixture], "max_examples": 60}


def connect(host: Host, which: str) -> socket.socket:
    if which == "control":
        one = socket.socket(socket.AF_UNIX)
        one.connect(str(host.control_path))  # blocking: the queue of connections may be full
        one.settimeout(10)
        return one
    port = host.port if which == "http" else host.check_port
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def resident(host: Host) -> int:
    """The agent's memory in MiB."""
    assert host.agent is not None
    words = Path(f"/proc/{host.agent.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", words)
    assert found is not None
    return int(found[1]) // 1024


def answers(host: Host, within: float = 5.0) -> None:
    """Everything that the agent serves, each within so many seconds."""
    begun = time.monotonic()
    assert host.check() == "up ready 100%\n"
    assert time.monotonic() - begun < within
    begun = time.monotonic()
    assert isinstance(host.ask(Status()), Report)
    assert time.monotonic() - begun < within


# -- silence ---------------------------------------------------------------------------------


@pytest.mark.parametrize("which", INPUTS)
def test_two_hundred_silent_clients_keep_nobody_out(host: Host, which: str) -> None:
    serving(host)
    before = resident(host)
    with ExitStack() as stack:
        for _ in range(CROWD):
            stack.enter_context(connect(host, which))
        answers(host)
        for path in ("/metrics", "/readyz", "/livez", "/status"):
            assert host.get(path)[0] == 200
        assert resident(host) < before + 16
    answers(host)
    assert "Traceback" not in host.log()


def test_two_hundred_silent_clients_everywhere_and_a_drain_goes_its_way(host: Host) -> None:
    serving(host)
    before = resident(host)
    with ExitStack() as stack:
        for which in INPUTS:
            for _ in range(CROWD):
                stack.enter_context(connect(host, which))
        answers(host)
        for path in ("/metrics", "/readyz"):
            assert host.get(path)[0] == 200
        drained = host.ask(Drain(replicas=("tiny",), wait=True))
        assert isinstance(drained, Done)
        assert drained.results[0].state == "drained"
        assert host.check() == "up drain\n"
        ready = host.ask(Ready(replicas=("tiny",), wait=True))
        assert isinstance(ready, Done)
        assert ready.results[0].state == "ready"
        assert resident(host) < before + 24
        assert host.stop() < PROMPT
    assert "Traceback" not in host.log()


@pytest.mark.parametrize("which", INPUTS)
def test_clients_that_come_again_and_again(host: Host, which: str) -> None:
    """A thousand of them, each gone before it is answered."""
    serving(host)
    # what it needs for a crowd at all it has after the first one
    for _ in range(1000):
        connect(host, which).close()
    answers(host)
    before = resident(host)
    for _ in range(1000):
        with connect(host, which) as one, contextlib.suppress(OSError):
            one.sendall(b"x")
    answers(host)
    assert resident(host) < before + 8
    assert "Traceback" not in host.log()
    assert host.log().count("\n") < 100, "nobody fills the journal from outside"


# -- nonsense --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, nvml_library: Path) -> Iterator[Host]:
    """One agent for all that follows: it has to bear everything in turn."""
    with Host(tmp_path_factory.mktemp("host"), nvml_library) as host:
        serving(host)
        yield host


@pytest.mark.parametrize("which", INPUTS)
@settings(**ONCE)  # type: ignore[arg-type]
@given(data=st.binary(max_size=2000))
@example(data=b"\n" * 70_000)
@example(data=b"{" * 100_000 + b"\n")
@example(data=b'{"verb":"drain","replicas":["tiny"],"deadline":1e999}\n')
@example(data=b'{"version":1,"verb":"drain","replicas":["tiny\\u0000"]}\n')
@example(data=b'{"version":1,"verb":"ready","replicas":"tiny","all":true}\n')
@example(data=b"GET /../../etc/passwd HTTP/9.9\r\n\r\n")
@example(data=b"GET /status HTTP/1.1\r\nContent-Length: -1\r\n\r\n")
@example(data=b"\xff" * 66 + b"\n")
def test_garbage(running: Host, which: str, data: bytes) -> None:
    with connect(running, which) as one, contextlib.suppress(OSError):
        one.sendall(data)
        one.shutdown(socket.SHUT_WR)
        while one.recv(65536):
            pass
    assert running.check() == "up ready 100%\n"
    assert running.gate()


def test_after_all_of_it_the_agent_is_as_it_was(running: Host) -> None:
    answers(running)
    assert running.get("/readyz")[0] == 200
    assert "Traceback" not in running.log()
    assert "a defect" not in running.log()
    assert resident(running) < 96


class Mad(socketserver.ThreadingTCPServer):
    """An engine that answers every request with another piece of nonsense."""

    allow_reuse_address = True
    daemon_threads = True
    PIECES = (
        b"",
        b"\x00\xff" * 500,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"\xfe" * 100,
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"HTTP/1.1 999 ?\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n[[[[[[[[",
        b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"data": 1e9}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\nvllm:num_requests_running NaN\n" + b"x" * 11,
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 200_000 + b"\r\n\r\n",
    )

    def __init__(self, port: int) -> None:
        self.asked = 0
        super().__init__(("127.0.0.1", port), MadHandler)


class MadHandler(socketserver.BaseRequestHandler):
    server: Mad

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.request.recv(65536)
            piece = self.server.PIECES[self.server.asked % len(self.server.PIECES)]
            self.server.asked += 1
            self.request.sendall(piece)


def test_an_engine_that_answers_nonsense(host: Host) -> None:
    one = replica()
    host.configure(one, tick=0.05)
    host.unit(one.unit, run=1)
    engine = host.engine(one.port, "tiny")
    host.start()
    until(lambda: host.get("/readyz")[0] == 200)
    engine.kill()
    engine.wait()
    with Mad(one.port) as mad:
        threading.Thread(target=mad.serve_forever, args=(0.05,), daemon=True).start()
        try:
            until(lambda: mad.asked > 5 * len(Mad.PIECES))
            assert host.get("/livez")[0] == 200
            until(lambda: host.replica().up is False)
            assert host.gate(), "its unit runs, and nothing says that it is wedged"
            ready = host.asking(Ready(replicas=("tiny",)))
            assert isinstance(ready.last_word(), Done)
            host.unit(one.unit, run=2)
            until(lambda: host.phase() == "warming")
            asked = mad.asked
            until(lambda: mad.asked > asked + 5 * len(Mad.PIECES))
            assert not host.gate()
        finally:
            mad.shutdown()
    assert resident(host) < 96
    assert "Traceback" not in host.log()


def test_a_bus_that_speaks_nonsense(host: Host) -> None:
    serving(host)
    host.systemd.stop()
    host.systemd.bus.unlink(missing_ok=True)
    replies = [
        b"\xff" * 100,
        b"OK 0123\r\n" + b"l\x02\x00\x01" + b"\xff" * 200,
        b"",
        b"REJECTED\r\n",
    ]
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(host.systemd.bus))
        bus.listen(8)
        bus.settimeout(20)
        for reply in replies:
            joined, _ = bus.accept()
            with joined, contextlib.suppress(OSError):
                joined.settimeout(5)
                joined.recv(1000)
                joined.sendall(reply)
        until(lambda: any("bus" in reason for reason in host.reasons()))
    assert host.get("/livez")[0] == 200
    assert host.gate()
    assert host.check() == "up ready 100%\n"
    assert host.stop() < PROMPT
    assert "Traceback" not in host.log()
