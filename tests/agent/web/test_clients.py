"""Clients that say nothing, half of a handshake, or do not read: over TLS, by the hundred."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from farrier_agent.web.crowd import MAX_CONNECTIONS, MAX_SILENT

from tests.agent.host import until
from tests.agent.web.conftest import Serve
from tests.agent.web.served import ALICE, TLS, Served, ask, basic

CROWD = 300
ASK = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"


def hello(tls: ssl.SSLContext) -> bytes:
    """What a client says first."""
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def silent(one: Served, _: ssl.SSLContext) -> socket.socket:
    return one.connect()


def half_a_hello(one: Served, tls: ssl.SSLContext) -> socket.socket:
    made = one.connect()
    made.sendall(hello(tls)[:100])
    return made


def half_a_handshake(one: Served, tls: ssl.SSLContext) -> socket.socket:
    made = one.connect()
    made.sendall(hello(tls))
    return made


def half_a_request(one: Served, tls: ssl.SSLContext) -> socket.socket:
    made = tls.wrap_socket(one.connect(), server_hostname="localhost")
    made.sendall(ASK[:20])
    return made


KINDS = [silent, half_a_hello, half_a_handshake, half_a_request]
Kind = Callable[[Served, ssl.SSLContext], socket.socket]


@pytest.mark.parametrize("kind", KINDS)
def test_three_hundred_of_them_and_a_scrape_goes_on(serve: Serve, kind: Kind) -> None:
    one = serve(TLS + f"basic_auth_users: {{alice: {ALICE}}}")
    tls = one.context()
    prometheus = one.connection(tls)
    assert ask(prometheus, "/metrics", basic()).code == 200
    mine = prometheus.sock
    with ExitStack() as stack:
        for number in range(CROWD):
            with contextlib.suppress(OSError):  # it may be put out while it says its half
                stack.enter_context(kind(one, tls))
            if number % 20 == 0:
                begun = time.monotonic()
                assert ask(prometheus, "/metrics", basic()).code == 200
                assert one.get("/metrics", basic(), tls).code == 200
                assert time.monotonic() - begun < 5
        assert one.inside(lambda: len(one.endpoint._crowd)) <= MAX_SILENT + 1
    assert prometheus.sock is mine, "who was answered before is not put out for who says nothing"
    prometheus.close()
    until(lambda: one.inside(lambda: len(one.endpoint._crowd)) == 0)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_handshake_has_five_seconds_however_slowly_it_goes_on(serve: Serve, kind: Kind) -> None:
    one = serve(TLS)
    tls = one.context()
    rest = iter(hello(tls)[100:])
    begun = time.monotonic()
    with kind(one, tls) as made:
        made.settimeout(0.3)
        ended = False
        while not ended and time.monotonic() - begun < 20:
            try:
                if kind is half_a_hello:
                    made.sendall(bytes([next(rest)]))
                ended = not made.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                ended = True
    assert 4.5 < time.monotonic() - begun < 10


Answering = tuple[Served, Callable[[], socket.socket]]


@pytest.fixture(params=["http", "https"])
def answering(request: pytest.FixtureRequest, serve: Serve) -> Answering:
    one = serve(TLS if request.param == "https" else None)

    def connect() -> socket.socket:
        made = one.connect()
        if request.param == "http":
            return made
        return one.context().wrap_socket(made, server_hostname="localhost")

    return one, connect


def test_clients_that_do_not_read(answering: Answering) -> None:
    """Each asks for more than the kernel buffers for it, and takes none of it."""
    _, connect = answering
    many = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n" * 400
    before = resident()
    with ExitStack() as stack:
        for _ in range(40):
            made = stack.enter_context(connect())
            made.settimeout(0.05)
            with contextlib.suppress(OSError):
                made.sendall(many)
        begun = time.monotonic()
        with stack.enter_context(connect()) as made:
            made.settimeout(20)
            made.sendall(ASK)
            assert made.recv(1000).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - begun < 5
        assert resident() < before + 64, "a page is there once, however many do not read it"


def resident() -> int:
    """This process' memory in MiB."""
    words = Path("/proc/self/statm").read_text().split()
    return int(words[1]) * 4096 // 1024**2


def test_pipelined_requests_are_answered_in_turn(answering: Answering) -> None:
    _, connect = answering
    with connect() as made:
        made.settimeout(20)
        made.sendall(ASK * 50 + b"GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        heard = b""
        while piece := made.recv(65536):
            heard += piece
    assert heard.count(b"HTTP/1.1 200") == 50
    assert heard.count(b"HTTP/1.1 404") == 1
    assert heard.rindex(b"HTTP/1.1 404") > heard.rindex(b"HTTP/1.1 200")


def test_one_that_asks_without_end_does_not_keep_others_waiting(answering: Answering) -> None:
    _, connect = answering
    with connect() as made, connect() as other:
        made.settimeout(0.05)
        with contextlib.suppress(OSError):
            made.sendall(ASK * 4000)
        other.settimeout(20)
        begun = time.monotonic()
        other.sendall(ASK)
        assert other.recv(1000).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - begun < 2


def test_who_says_no_more_still_gets_the_answer(serve: Serve) -> None:
    one = serve()
    with one.connect() as made:
        made.sendall(ASK)
        made.shutdown(socket.SHUT_WR)
        heard = b""
        while piece := made.recv(65536):
            heard += piece
    assert heard.startswith(b"HTTP/1.1 200")
    until(lambda: one.inside(lambda: len(one.endpoint._crowd)) == 0)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"GET /livez HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc", b"200"),
        (
            b"POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999\r\n\r\n" + b"x" * 9999,
            b"405",
        ),
        (
            b"PUT /livez HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n",
            b"405",
        ),
        (b"GET /livez HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 20_000, b"400"),
        (b"GET /livez HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 5000, b"400"),
        (b"GET /livez HTTP/1.1\r\nhost: x\r\ntransfer-encoding: bogus\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (b"\r\n\r\n\r\nnonsense\r\n\r\n", b"400"),
    ],
)
def test_what_is_said_badly_is_answered_and_ends(
    answering: Answering, said: bytes, code: bytes
) -> None:
    one, connect = answering
    with connect() as made:
        made.settimeout(20)
        made.sendall(said)
        heard = b""
        with contextlib.suppress(ConnectionError):
            while piece := made.recv(65536):
                heard += piece
    assert heard.startswith(b"HTTP/1.1 " + code), heard[:200]
    assert heard.count(b"content-length: ") == 1
    until(lambda: one.inside(lambda: len(one.endpoint._crowd)) == 0)


def test_no_more_connections_than_there_may_be(serve: Serve) -> None:
    one = serve()
    with ExitStack() as stack:
        made = [stack.enter_context(one.connect()) for _ in range(CROWD)]
        for each in made:
            with contextlib.suppress(OSError):
                each.sendall(ASK)
        until(lambda: one.inside(lambda: len(one.endpoint._crowd)) <= MAX_CONNECTIONS)
        assert one.get().code == 200


def test_the_end_lets_a_running_answer_finish(tmp_path: Path) -> None:
    with Served(tmp_path) as one:
        connection = one.connection()
        assert ask(connection).code == 200
        begun = time.monotonic()
    assert time.monotonic() - begun < 5, "nobody waits for who is silent"
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(connection)
