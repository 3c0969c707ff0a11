"""The connections to a host's engines: who shares an answer of the kernel, and who never does."""

from __future__ import annotations

import os
import pwd
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier

import pytest
from farrier_agent.movement import Bytes, Movement, MovementError
from farrier_agent.serving.connections import Connections
from farrier_agent.serving.counting import Count, Counter

from tests.agent.host import until


class Kernel:
    """Tells one connection more each time; at *at* by the clock."""

    def __init__(self) -> None:
        self.at = 100.0
        self.asked: list[tuple[int, ...]] = []
        self.refuses = False

    def read(self, *ports: int) -> list[Bytes]:
        self.asked.append(ports)
        if self.refuses:
            raise MovementError("no netlink")
        return [Bytes(number, 33, 8101, 5, 0, 0) for number in range(len(self.asked))]

    def clock(self) -> float:
        return self.at


def test_who_asks_shortly_after_has_the_same_answer_and_later_another_one() -> None:
    kernel = Kernel()
    connections = Connections([8101, 8102], 5.0, read=kernel.read, clock=kernel.clock)
    assert len(connections.seen(connections.glance)) == 1
    kernel.at += 0.2
    assert len(connections.seen(connections.glance)) == 1
    kernel.at += 0.2
    assert len(connections.seen(connections.step)) == 1
    assert len(connections.seen(connections.glance)) == 2
    assert kernel.asked == [(8101, 8102)] * 2


@pytest.mark.parametrize("tick", [0.05, 1.0, 5.0, 60.0])
def test_two_looks_in_a_row_never_compare_an_answer_with_itself(tick: float) -> None:
    # the earliest that a replica's health is judged again: healing.py
    apart = 0.9 * min(tick, 5.0)
    kernel = Kernel()
    connections = Connections([8101], tick, read=kernel.read, clock=kernel.clock)
    connections.seen(connections.step)
    before = 1
    for _ in range(20):
        kernel.at += apart
        now = len(connections.seen(connections.step))
        assert now > before
        before = now


def test_a_refusal_is_not_kept() -> None:
    kernel = Kernel()
    connections = Connections([8101], 5.0, read=kernel.read, clock=kernel.clock)
    connections.seen(1.0)
    kernel.refuses, kernel.at = True, 110.0
    for _ in range(2):
        with pytest.raises(MovementError):
            connections.seen(1.0)
    kernel.refuses = False
    assert len(connections.seen(1.0)) == 4


def test_replicas_that_look_in_the_same_moment_ask_the_kernel_once() -> None:
    kernel = Kernel()
    connections = Connections([8101], 5.0, read=kernel.read, clock=kernel.clock)
    together = Barrier(8)

    def look() -> int:
        together.wait()
        return len(connections.seen(connections.glance))

    with ThreadPoolExecutor(8) as pool:
        looks = [pool.submit(look) for _ in range(8)]
    assert [one.result() for one in looks] == [1] * 8


def test_a_glance_sees_what_a_look_sees() -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        ports = [one.getsockname()[1] for one in servers]
        connections = Connections(ports, 0.0)
        # nobody's sockets here are nginx's: the test's own user stands in for its workers'
        counters = [Counter(f"m{port}", port, me, connections) for port in ports]
        for number in (0, 0, 1):
            stack.enter_context(socket.create_connection(servers[number].getsockname()))
        until(lambda: [one.glance() for one in counters] == [Count(2), Count(1)])
        assert [one.look() for one in counters] == [Count(2), Count(1)]
        moved = counters[0].move(Movement())
        assert moved is not None
        assert moved.sockets == 2


def test_without_netlink_a_glance_is_a_look() -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    kernel = Kernel()
    kernel.refuses = True
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        counter = Counter("tiny", port, me, Connections([port], 5.0, read=kernel.read))
        with socket.create_connection(server.getsockname()):
            assert counter.glance() == Count(1)
            assert counter.move(Movement()) is None
