"""The agent's end of the control socket, over a real one: bounds, beats, what goes wrong."""

from __future__ import annotations

import json
import os
import select
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from farrier_agent.control import protocol
from farrier_agent.control.client import ask
from farrier_agent.control.errors import ControlError, LostError, NoAgentError, ProtocolError
from farrier_agent.control.listening import bind
from farrier_agent.control.protocol import (
    Done,
    Drain,
    Entry,
    Failed,
    Journal,
    Progress,
    Ready,
    Reply,
    Report,
    Restart,
    Result,
    Status,
    Stopping,
)
from farrier_agent.control.server import MAX_RUNNING, MAX_SILENT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.agent.control.house import SNAPSHOT, House, everything, house
from tests.agent.host import until

TINY = Drain(replicas=("tiny",))
TINY_WAIT = Drain(replicas=("tiny",), wait=True)


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
def agent(socket_path: Path) -> Iterator[House]:
    with house(socket_path) as one:
        yield one


def replies(connection: socket.socket) -> list[Reply | None]:
    return [protocol.decode_reply(line) for line in everything(connection).splitlines()]


def rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# -- what is asked and answered ------------------------------------------------------------


def test_status_is_the_snapshot(agent: House) -> None:
    assert ask(Status(), path=agent.path) == Report(status=SNAPSHOT)


def test_a_drain_is_accepted_at_once_then_told_then_done(agent: House) -> None:
    with agent.connect() as connection:
        connection.sendall(protocol.encode(TINY))
        kinds = [type(reply).__name__ for reply in replies(connection)]
    assert kinds == ["Accepted", "Progress", "Done"]


def test_news_come_while_one_waits(agent: House) -> None:
    news: list[object] = []

    def hear(one: object) -> None:
        news.append(one)
        agent.drained()  # so the answer can only come after the news

    final = ask(TINY_WAIT, path=agent.path, hear=hear)
    assert news == [Progress(replica="tiny", state="draining", in_flight=2)]
    assert final == Done(results=(Result(replica="tiny", state="drained", seconds=1.5),))


def test_the_agent_knows_who_asks_from_the_kernel(agent: House) -> None:
    ask(TINY, path=agent.path)
    (asker,) = agent.handlers.askers
    assert (asker.uid, asker.gid, asker.pid) == (os.getuid(), os.getgid(), os.getpid())
    assert asker.groups >= set(os.getgroups())
    assert str(asker.pid) in str(asker)


def test_a_refusal_has_its_reason_its_code_and_the_next_command(agent: House) -> None:
    assert ask(Ready(all=True), path=agent.path) == Failed(
        code=3, error="systemd stops engine-tiny.service", next="systemctl status engine-tiny"
    )


def test_a_defect_is_answered_too_and_the_agent_lives_on(agent: House) -> None:
    final = ask(Restart(all=True), path=agent.path)
    assert isinstance(final, Failed)
    assert final.code == 1
    assert isinstance(ask(Stopping(replica="tiny"), path=agent.path), Done)


def test_a_request_may_be_piped_in(agent: House) -> None:
    """As `socat` and `nc -N` do: the asker's half is closed before the answer comes."""
    with agent.connect() as connection:
        connection.sendall(protocol.encode(TINY_WAIT))
        connection.shutdown(socket.SHUT_WR)
        until(lambda: agent.handlers.waiting == 1)
        agent.drained()
        assert isinstance(replies(connection)[-1], Done)


# -- life and death ------------------------------------------------------------------------


def test_a_long_wait_is_full_of_signs_of_life(socket_path: Path) -> None:
    with house(socket_path, beat=0.05) as agent, agent.connect() as connection:
        connection.sendall(protocol.encode(TINY_WAIT))
        heard = b""
        while heard.count(b'"beat"') < 3:
            heard += connection.recv(65536)
        agent.drained()
        assert isinstance(replies(connection)[-1], Done)


def test_the_handler_of_an_asker_that_went_away_is_cancelled(socket_path: Path) -> None:
    with house(socket_path, beat=0.05) as agent:
        with agent.connect() as connection:
            connection.sendall(protocol.encode(TINY_WAIT))
            until(lambda: agent.handlers.waiting == 1)
        until(lambda: agent.handlers.cancelled == 1)
        assert isinstance(ask(Status(), path=agent.path), Report)


def test_the_agents_end_is_told_from_its_silence(agent: House) -> None:
    def hear(_: object) -> None:
        agent.close()

    with pytest.raises(LostError, match="carries on when it is back"):
        ask(TINY_WAIT, path=agent.path, hear=hear)
    with pytest.raises(NoAgentError, match="Connection refused"):
        ask(Status(), path=agent.path)


def test_an_agent_that_hangs_is_given_up(socket_path: Path) -> None:
    with bind(socket_path) as listener:
        begun = time.monotonic()
        with pytest.raises(NoAgentError, match="no answer in time"):
            ask(Status(), path=socket_path, answer_within=0.2)
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(1000) == protocol.encode(Status())
        assert time.monotonic() - begun < 5


def test_an_agent_that_falls_silent_is_given_up(agent: House) -> None:
    with pytest.raises(LostError, match="no answer in time"):
        ask(TINY_WAIT, path=agent.path, silence=0.2)
    agent.drained()


@pytest.mark.parametrize(
    "answer", [b"\n", b"HTTP/1.1 200 OK\r\n", b'{"kind":"accepted"}\n', b"\xff\n", b"{}\n"]
)
def test_another_program_on_the_socket_is_recognised(socket_path: Path, answer: bytes) -> None:
    with bind(socket_path) as listener:

        def other() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=other)
        thread.start()
        with pytest.raises(ProtocolError):
            ask(Status(), path=socket_path)
        thread.join(10)


# -- bounds --------------------------------------------------------------------------------


def test_two_hundred_silent_clients_keep_nobody_out(agent: House) -> None:
    ask(Status(), path=agent.path)
    before = rss()
    silent = [agent.connect() for _ in range(200)]
    try:
        for _ in range(20):
            begun = time.monotonic()
            assert isinstance(ask(Status(), path=agent.path), Report)
            assert time.monotonic() - begun < 1
        assert rss() - before < 16 * 2**20
        assert sum(closed(one) for one in silent) >= 200 - MAX_SILENT
    finally:
        for one in silent:
            one.close()


def closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_silence_is_closed_after_a_while(socket_path: Path) -> None:
    with house(socket_path, patience=0.2) as agent, agent.connect() as connection:
        assert everything(connection) == b""


def test_a_request_without_end_is_refused(agent: House) -> None:
    with agent.connect() as connection:
        connection.sendall(b'{"version":1,"verb":"status","x":"' + b"x" * protocol.MAX_REQUEST)
        (reply,) = replies(connection)
    assert isinstance(reply, Failed)
    assert reply.code == 2
    assert "longer than 16384 bytes" in reply.error


def test_no_more_than_so_many_requests_run_at_once(agent: House) -> None:
    waiting = []
    try:
        for _ in range(MAX_RUNNING):
            one = agent.connect()
            one.sendall(protocol.encode(TINY_WAIT))
            waiting.append(one)
        until(lambda: agent.handlers.waiting == MAX_RUNNING)
        final = ask(Status(), path=agent.path)
        assert isinstance(final, Failed)
        assert "busy" in final.error
        # systemd's stop of a unit is not kept waiting by anybody
        assert isinstance(ask(Stopping(replica="tiny"), path=agent.path), Done)
        agent.drained()
        until(lambda: agent.handlers.waiting == 0)
        assert all(isinstance(replies(one)[-1], Done) for one in waiting)
    finally:
        for one in waiting:
            one.close()
    assert isinstance(ask(Status(), path=agent.path), Report)


def test_a_client_that_does_not_read_is_dropped(socket_path: Path) -> None:
    with house(socket_path, patience=0.2) as agent, agent.connect() as connection:
        connection.sendall(protocol.encode(Journal(follow=True)))
        before = rss()
        # 4 kB entries without end: the drop is what ends them
        heard = len(everything(slowly(connection)))
        assert 0 < heard < 2**20
        assert rss() - before < 16 * 2**20
        assert isinstance(ask(Status(), path=agent.path), Report)


def slowly(connection: socket.socket) -> socket.socket:
    """*connection*, of which nothing was read until the server lost its patience and closed it."""
    closed = select.poll()
    closed.register(connection, select.POLLRDHUP)
    assert closed.poll(20_000), "the server waits for ever for one who does not read"
    return connection


def test_a_journal_longer_than_any_buffer_arrives_whole(agent: House) -> None:
    entries: list[Entry] = []

    def hear(one: object) -> None:
        assert isinstance(one, Entry)
        entries.append(one)

    assert ask(Journal(lines=500), path=agent.path, hear=hear) == Done()
    assert [entry.at for entry in entries] == [float(number) for number in range(500)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=400) | st.text().map(lambda text: json.dumps(text).encode()))
def test_garbage_gets_a_reason_and_harms_nobody(agent: House, data: bytes) -> None:
    with agent.connect() as connection:
        connection.sendall(data + b"\n")
        (reply,) = replies(connection)
    assert isinstance(reply, Failed)
    assert reply.code == 2
    assert reply.error


# -- the socket itself ---------------------------------------------------------------------


def test_the_socket_is_its_owners_and_a_groups_alone(tmp_path: Path) -> None:
    for group, mode in ((None, 0o600), (os.getgid(), 0o660)):
        path = tmp_path / f"{mode:o}.sock"
        with bind(path, group):
            assert stat.S_IMODE(path.stat().st_mode) == mode
            assert path.stat().st_gid == os.getgid()


@pytest.mark.skipif(os.getuid() != 0, reason="changing the user needs root")
@pytest.mark.parametrize(
    ("gid", "groups", "let_in"),
    [(4000, [], False), (4001, [], True), (4000, [4001], True), (4000, [4002], False)],
)
def test_only_members_of_the_group_are_let_in(
    tmp_path: Path, gid: int, groups: list[int], let_in: bool
) -> None:
    """The kernel's word counts, also where the file's mode was opened to everybody by mistake."""
    path = Path("/tmp") / f"farrier-{os.getpid()}-{tmp_path.name}.sock"
    with house(path) as agent:
        agent.server._group = 4001
        path.chmod(0o666)
        final = in_child(lambda: kind(ask(Status(), path=path)), 4000, gid, groups)
    path.unlink()
    assert final == ("Report" if let_in else "Failed 3")


def kind(final: object) -> str:
    return f"Failed {final.code}" if isinstance(final, Failed) else type(final).__name__


def in_child(what: Callable[[], str], uid: int, gid: int, groups: list[int]) -> str:
    """What *what* returns in a process of another user."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
            os.write(write, what().encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as answer:
        return answer.read().decode()


def test_a_second_agent_is_refused_and_a_dead_ones_socket_replaced(socket_path: Path) -> None:
    first = bind(socket_path)
    with pytest.raises(ControlError, match="another agent listens"):
        bind(socket_path)
    first.close()
    assert socket_path.exists()
    with bind(socket_path), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(socket_path))


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(ControlError, match="is no socket"):
        bind(path)
    assert path.read_text() == "precious"
    with pytest.raises(ControlError, match="cannot be made: No such file or directory"):
        bind(tmp_path / "absent" / "control.sock")
