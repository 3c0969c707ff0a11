"""Bytes on the sockets towards an engine, as the real kernel counts them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest
from farrier_agent.movement import Bytes, Movement, MovementError, parse, read, step
from hypothesis import given
from hypothesis import strategies as st

from tests.agent.host import until


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one


class Watched:
    """The sockets of this process towards *listener*, looked at again and again."""

    def __init__(self, listener: socket.socket) -> None:
        self.port: int = listener.getsockname()[1]
        self.movement = Movement()

    def look(self) -> int:
        before = self.movement.moved
        self.movement = step(self.movement, read(self.port), self.port, nginx_uid=os.getuid())
        return self.movement.moved - before


def pair(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    """A client's socket, and the engine's side of it."""
    client = socket.create_connection(listener.getsockname())
    return client, listener.accept()[0]


def test_a_request_that_waits_does_not_move_and_its_bytes_do(listener: socket.socket) -> None:
    watched = Watched(listener)
    client, engine = pair(listener)
    with client, engine:
        client.sendall(b"POST")
        watched.look()
        until(lambda: watched.look() == 0)
        assert watched.movement.sockets == 1
        assert watched.look() == 0
        client.sendall(b"more of an upload")
        until(lambda: watched.look() == 1)
        until(lambda: watched.look() == 0)
        engine.sendall(b"data: token")
        until(lambda: watched.look() == 1)
        assert watched.look() == 0
        assert watched.movement.unread == 1
        client.recv(100)
        assert watched.look() == 0
        assert watched.movement.unread == 0


def test_a_new_request_is_no_movement_and_one_that_ended_is(listener: socket.socket) -> None:
    watched = Watched(listener)
    first, second = pair(listener), pair(listener)
    watched.look()
    until(lambda: watched.look() == 0)
    third = pair(listener)
    assert watched.look() == 0
    assert watched.movement.sockets == 3
    for one in (*first, *second):
        one.close()
    until(lambda: watched.look() == 1)
    for one in third:
        one.close()


def test_only_nginxs_sockets_towards_the_engine_count() -> None:
    seen = [Bytes(1, 33, 8101, 5, 0, 0), Bytes(2, 0, 8101, 5, 0, 0), Bytes(3, 33, 8102, 5, 0, 9)]
    movement = step(Movement(), seen, 8101, nginx_uid=33)
    assert (movement.sockets, movement.unread) == (1, 0)


def test_one_question_is_for_many_ports_and_no_others(listener: socket.socket) -> None:
    with contextlib.ExitStack() as stack:
        servers = [listener] + [
            stack.enter_context(socket.create_server((address, 0), family=family))
            for address, family in [
                *[("127.0.0.1", socket.AF_INET)] * 3,
                ("::1", socket.AF_INET6),
            ]
        ]
        ports = [one.getsockname()[1] for one in servers]
        for one in servers:
            address = one.getsockname()[:2]
            stack.enter_context(socket.create_connection(address))
        mapped = stack.enter_context(socket.socket(socket.AF_INET6))
        mapped.connect(("::ffff:127.0.0.1", ports[0]))
        for asked in range(1, len(ports) + 1):
            found = read(*ports[:asked])
            # the one that speaks IPv4 over a socket of IPv6 is there, too
            assert sorted(one.port for one in found) == sorted([ports[0], *ports[:asked]])
            assert all(one.loopback and one.uid == os.getuid() for one in found)


@given(st.binary(max_size=300))
def test_garbage_is_refused_in_words(data: bytes) -> None:
    message = (len(data) + 16).to_bytes(4, "little") + (20).to_bytes(2, "little") + bytes(10) + data
    for garbage in (data, message):
        try:
            parse(garbage)
        except MovementError as error:
            assert str(error)  # noqa: PT017 - most of it raises, not all
