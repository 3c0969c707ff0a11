"""The kernel's sockets: both sources say the same, of real connections and of invented ones."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import pytest
from farrier_agent.draining import sockets
from farrier_agent.draining.sockets import Socket, SocketsError, State, parse_diag, parse_proc
from hypothesis import given
from hypothesis import strategies as st

from tests.agent.host import until

PORTS = st.integers(0, 65535)
NUMBERS = st.integers(0, 2**32 - 1)


def _socket(family: Literal[4, 6], state: State, unsent: int) -> st.SearchStrategy[Socket]:
    addresses = st.ip_addresses(v=family).filter(
        lambda one: one.version == 4 or one.ipv4_mapped is None
    )
    return st.builds(
        Socket,
        state=st.just(state),
        local=addresses,
        local_port=PORTS,
        remote=addresses,
        remote_port=PORTS,
        uid=NUMBERS,
        inode=NUMBERS,
        unsent=st.just(0 if state is State.LISTEN else unsent),
    )


FAMILIES: st.SearchStrategy[Literal[4, 6]] = st.sampled_from([4, 6])
INVENTED = st.tuples(FAMILIES, st.sampled_from(State), NUMBERS).flatmap(
    lambda three: _socket(*three)
)


def as_proc(found: list[Socket]) -> str:
    """What /proc/net/tcp says of *found*; get_tcp4_sock() in the kernel's tcp_ipv4.c."""

    def address(ip: sockets.IP, port: int) -> str:
        words = [ip.packed[at : at + 4] for at in range(0, len(ip.packed), 4)]
        return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words) + (
            f":{port:04X}"
        )

    lines = ["  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid"]
    lines += [
        f"{at:4d}: {address(one.local, one.local_port)} {address(one.remote, one.remote_port)}"
        f" {one.state:02X} {one.unsent:08X}:00000000 00:00000000 00000000 {one.uid:5d}"
        f"        0 {one.inode} 1 0000000000000000 20 4 30 10 -1"
        for at, one in enumerate(found)
    ]
    return "\n".join(lines) + "\n"


def message(kind: int, body: bytes, flags: int = 2) -> bytes:
    head = struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0)
    return head + body + bytes(-len(body) % 4)


DONE = message(3, bytes(4))


def as_diag(found: list[Socket]) -> bytes:
    def body(one: Socket) -> bytes:
        family = socket.AF_INET if one.local.version == 4 else socket.AF_INET6
        return (
            struct.pack("=BBBB", family, one.state, 0, 0)
            + struct.pack("!HH", one.local_port, one.remote_port)
            + one.local.packed.ljust(16, b"\0")
            + one.remote.packed.ljust(16, b"\0")
            + struct.pack("=III", 0, 1, 2)
            + struct.pack("=IIIII", 0, 0, one.unsent, one.uid, one.inode)
            + struct.pack("=HHB", 5, 8, 0)  # an attribute behind it, INET_DIAG_SHUTDOWN
        )

    return b"".join(message(20, body(one)) for one in found) + DONE


@given(st.lists(INVENTED, max_size=8))
def test_both_parsers_read_what_the_kernel_writes(found: list[Socket]) -> None:
    assert parse_proc(as_proc(found)) == found
    assert parse_diag(as_diag(found)) == found


def test_ipv4_in_an_ipv6_socket_is_ipv4() -> None:
    text = (
        "sl\n   0: 0000000000000000FFFF00000100007F:D431 0000000000000000FFFF00000100007F:1F90 01"
        " 00000000:00000000 00:00000000 00000000    33        0 42 1 0 20 4 30 10 -1\n"
    )
    (one,) = parse_proc(text)
    assert (one.remote, one.remote_port) == (ipaddress.IPv4Address("127.0.0.1"), 8080)


@given(st.text(alphabet="0123456789ABCDEFG:. \n\t", max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_proc("sl\n" + text)
    except SocketsError as error:
        assert "line" in str(error)  # noqa: PT017 - either is right


@given(st.binary(max_size=300), st.lists(INVENTED, max_size=2), st.data())
def test_any_bytes_are_read_or_refused(
    noise: bytes, found: list[Socket], data: st.DataObject
) -> None:
    whole = as_diag(found)
    at = data.draw(st.integers(0, len(whole)))
    for damaged in (noise, whole[:at] + noise, whole[:at] + noise + whole[at:]):
        try:
            parse_diag(damaged)
        except SocketsError as error:
            assert "netlink" in str(error)  # noqa: PT017 - either is right


def test_what_the_kernel_says_about_its_answer() -> None:
    with pytest.raises(SocketsError, match="error 13"):
        parse_diag(message(2, struct.pack("=i", -13)))
    with pytest.raises(SocketsError, match="no end"):
        parse_diag(as_diag([])[: -len(DONE)])
    assert parse_diag(message(20, b"", flags=0x12) + DONE) is None


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family) as one:
        one.bind((request.param, 0))
        one.listen(8)
        yield one


def towards(port: int, source: str) -> list[Socket]:
    found = sockets.read(remote_port=port) if source == "netlink" else sockets.read_proc()
    return sorted(
        (one for one in found if one.remote_port == port and one.state is not State.TIME_WAIT),
        key=lambda one: one.local_port,
    )


@pytest.mark.parametrize("source", ["netlink", "proc"])
def test_real_connections(listener: socket.socket, source: str) -> None:
    address = listener.getsockname()
    port = int(address[1])
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(address[:2], timeout=5)) for _ in range(3)
        ]
        servers = [stack.enter_context(listener.accept()[0]) for _ in clients]
        by_peer = {one.getpeername()[1]: one for one in servers}
        found = towards(port, source)
        assert [one.local_port for one in found] == sorted(by_peer)
        assert {(one.state, one.uid) for one in found} == {(State.ESTABLISHED, os.getuid())}
        assert {one.inode for one in found} == {os.fstat(one.fileno()).st_ino for one in clients}
        assert {str(one.remote) for one in found} == {address[0]}
        # the engine closes first: nginx still reads
        mine = clients[0].getsockname()[1]
        by_peer[mine].close()
        until(
            lambda: (
                next(one for one in towards(port, source) if one.local_port == mine).state
                is State.CLOSE_WAIT
            )
        )
        # the client closes first
        other = clients[1].getsockname()[1]
        clients[1].shutdown(socket.SHUT_WR)
        until(
            lambda: (
                next(one for one in towards(port, source) if one.local_port == other).state
                is State.FIN_WAIT2
            )
        )


@pytest.mark.parametrize("source", ["netlink", "proc"])
def test_bytes_that_were_not_acknowledged(listener: socket.socket, source: str) -> None:
    address = listener.getsockname()
    client = socket.create_connection(address[:2], timeout=5)
    server, _ = listener.accept()
    with client, server:
        client.setblocking(False)
        while True:  # until neither the reader's nor the writer's buffer takes more
            try:
                client.send(bytes(65536))
            except BlockingIOError:
                break
        # /proc may show a socket twice while others come and go
        found = towards(int(address[1]), source)
        assert found
        assert all(one.unsent > 0 for one in found)


def test_a_connection_to_one_who_does_not_answer_is_on_its_way() -> None:
    with socket.socket() as full, ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(8):  # more than its queue holds: the kernel drops their SYNs
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        until(lambda: State.SYN_SENT in {one.state for one in towards(port, "netlink")})
        states = {one.state for one in towards(port, "proc")}
        assert {State.SYN_SENT, State.ESTABLISHED} <= states


def test_no_proc_is_not_no_sockets(tmp_path: Path) -> None:
    with pytest.raises(SocketsError, match="net/tcp"):
        sockets.read_proc(tmp_path)
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text("sl\n")
    assert sockets.read_proc(tmp_path) == []
    (tmp_path / "net" / "tcp6").write_text("sl\nnonsense\n")
    with pytest.raises(SocketsError, match="tcp6: line 2"):
        sockets.read_proc(tmp_path)


WITHOUT_NETLINK = """
import socket
from farrier_agent.draining import sockets
def refused(*_): raise PermissionError(1, "no netlink here")
real = socket.socket
class NoNetlink(real):
    def __init__(self, family=-1, *more, **names):
        if family == socket.AF_NETLINK: refused()
        super().__init__(family, *more, **names)
socket.socket = NoNetlink
with real() as one:
    one.bind(("127.0.0.1", 0)); one.listen()
    port = one.getsockname()[1]
    with socket.create_connection(one.getsockname()):
        print([found.state.name for found in sockets.read(remote_port=port)])
"""


def test_without_netlink_proc_answers() -> None:
    import subprocess

    command = [sys.executable, "-c", WITHOUT_NETLINK]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert said.stdout.strip() == "['ESTABLISHED']"
