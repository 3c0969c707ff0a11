"""Who is connected to an engine: requests, the agent itself, strangers."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable

import pytest
from farrier_agent.draining.inflight import InFlight, count, larger, look, uid_of, unsent_clients
from farrier_agent.draining.sockets import Socket, SocketsError, State
from hypothesis import given
from hypothesis import strategies as st

NGINX, AGENT, STRANGER, PORT = 33, 997, 1000, 8001
LOOPBACK = ipaddress.IPv4Address("127.0.0.1")


def one(
    uid: int = NGINX,
    state: State = State.ESTABLISHED,
    remote: str = "127.0.0.1",
    port: int = PORT,
    unsent: int = 0,
) -> Socket:
    ip = ipaddress.ip_address(remote)
    return Socket(state, LOOPBACK, 40000, ip, port, uid, 1, unsent)


def test_the_states_in_which_a_request_is_not_over() -> None:
    counted = {
        state for state in State if count([one(state=state)], PORT, nginx_uid=NGINX).requests
    }
    assert counted == {State.ESTABLISHED, State.CLOSE_WAIT, State.SYN_SENT}


def test_everybody_is_counted_apart() -> None:
    found = [one(), one(), one(AGENT), one(STRANGER), one(STRANGER), one(0)]
    seen = count(found, PORT, nginx_uid=NGINX, own_uids={AGENT})
    assert seen == InFlight(requests=2, own=1, strangers=((0, 1), (STRANGER, 2)))
    assert "connections of root (uid 0) past the gate" in seen.in_words()


def test_the_engine_s_own_end_and_other_hosts_are_no_requests() -> None:
    engines_end = Socket(State.ESTABLISHED, LOOPBACK, PORT, LOOPBACK, 40000, NGINX, 1)
    elsewhere = one(remote="198.18.0.7")
    six = one(remote="::1")
    assert count([engines_end, elsewhere, six], PORT, nginx_uid=NGINX) == InFlight(1)


@given(st.lists(st.tuples(st.sampled_from([0, NGINX, AGENT, STRANGER]), st.sampled_from(State))))
def test_nobody_is_counted_twice_or_lost(pairs: list[tuple[int, State]]) -> None:
    seen = count(
        [one(uid, state) for uid, state in pairs], PORT, nginx_uid=NGINX, own_uids=(AGENT, AGENT)
    )
    total = seen.requests + seen.own + sum(number for _, number in seen.strangers)
    alive = {State.ESTABLISHED, State.CLOSE_WAIT, State.SYN_SENT}
    assert total == sum(state in alive for _, state in pairs)
    assert seen.requests == sum(state in alive and uid == NGINX for uid, state in pairs)


def test_the_larger_of_what_is_told_and_what_is_counted() -> None:
    assert [larger(2, 5), larger(5, 2), larger(2, None), larger(0, 0)] == [5, 5, 2, 0]
    assert larger(None, 0) is None, "an engine that says 0 does not know who is on the way"


def test_a_look_at_a_real_port() -> None:
    with socket.socket() as engine:
        engine.bind(("127.0.0.1", 0))
        engine.listen(8)
        port = engine.getsockname()[1]
        with socket.create_connection(engine.getsockname()):
            mine: Callable[[], InFlight] = lambda: look(port, nginx_uid=os.getuid())  # noqa: E731
            assert mine() == InFlight(1)
            assert look(port, nginx_uid=12345) == InFlight(0, 0, ((os.getuid(), 1),))
        assert mine() == InFlight(0)


def test_clients_that_have_not_read_their_answers() -> None:
    client = ipaddress.ip_address("198.18.0.9")

    def nginx(state: State, unsent: int, port: int = 80) -> Socket:
        return Socket(state, LOOPBACK, port, client, 50000, NGINX, 1, unsent)

    found = [
        nginx(State.ESTABLISHED, 0),
        nginx(State.ESTABLISHED, 9),
        nginx(State.FIN_WAIT1, 9),
        nginx(State.LAST_ACK, 9),
        nginx(State.ESTABLISHED, 9, port=22),
        nginx(State.SYN_RECV, 9),
    ]
    assert unsent_clients(found, {80, 443}) == 3


def test_a_user_who_does_not_exist() -> None:
    assert uid_of("root") == 0
    with pytest.raises(SocketsError, match="no user 'nginx-of-nowhere'"):
        uid_of("nginx-of-nowhere")
