"""Signals to the running agent: it ends at once and moves nothing, or reads its file again."""

from __future__ import annotations

import grp
import os
import signal
import socket
import time
from contextlib import ExitStack
from typing import Any

import pytest
from farrier_agent.control.errors import ControlError
from farrier_agent.control.protocol import Done, Drain, Ready, Restart
from farrier_agent.draining.record import Phase

from tests.agent.host import PROMPT, Host, free_port, replica, until
from tests.agent.replicas import UNIT, counts, needs_another_user, serving
from tests.agent.standin import Client

DRAIN = Drain(replicas=("tiny",), wait=True, reason="a new driver")
READY = Ready(replicas=("tiny",), wait=True)


def hang_up(host: Host) -> None:
    assert host.agent is not None
    host.agent.send_signal(signal.SIGHUP)


def says(host: Host, text: str, times: int = 1) -> None:
    until(lambda: host.log().count(text) == times)


# -- SIGTERM ---------------------------------------------------------------------------------


def test_stopping_does_not_wait_for_clients(host: Host) -> None:
    serving(host)
    with ExitStack() as stack:
        for port in (host.port, host.check_port):
            for _ in range(3):
                address = ("127.0.0.1", port)
                one = stack.enter_context(socket.create_connection(address, timeout=5))
                one.sendall(b"GET /metr")
        silent = stack.enter_context(socket.socket(socket.AF_UNIX))
        silent.connect(str(host.control_path))
        assert host.stop() < PROMPT
    assert host.agent is not None
    assert host.agent.returncode == 0
    assert "Traceback" not in host.log()


@needs_another_user
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_leaves_a_drain_as_it_is(host: Host, number: int) -> None:
    one = serving(host)
    host.nginx.hold(one.port, 2)
    waiting = host.asking(DRAIN)
    until(lambda: counts(host, 2))
    seconds = host.stop(number)
    assert seconds < PROMPT
    assert not host.gate()
    assert host.record().phase is Phase.DRAINING
    with pytest.raises(ControlError):
        waiting.last_word()
    assert "farrier-agent stopped; gates are as they were" in host.log()
    assert "Traceback" not in host.log()
    host.start()
    host.nginx.let_go()
    until(lambda: host.phase() == "drained")


def test_stopping_while_everything_hangs(host: Host) -> None:
    """systemd, the engine and a restart that waits for both."""
    one = serving(host)
    Client(one.port).manners(answers="wedge")
    host.systemd.order(hang=["RestartUnit"])
    host.asking(Restart(replicas=("tiny",), wait=True))
    until(lambda: host.record().phase is Phase.DRAINED)
    host.systemd.order(hang=["*"])
    host.turns()
    assert host.stop() < PROMPT
    assert not host.gate()
    assert "Traceback" not in host.log()


def test_stopping_while_it_warms_up(host: Host) -> None:
    one = replica()
    host.configure(one)
    host.unit(UNIT, run=1)
    host.engine(one.port, "tiny", "--answers=wedge")
    host.start()
    until(lambda: "short generation" in (host.replica().detail or "") or host.replica().up)
    assert host.stop() < PROMPT
    assert not host.gate()


# -- SIGHUP ----------------------------------------------------------------------------------


def test_a_good_file_is_read_again(host: Host) -> None:
    one = serving(host)
    pid = host.snapshot().agent.pid
    other = replica("other")
    host.configure(one, other)
    host.unit(other.unit, run=1)
    host.engine(other.port, "other")
    hang_up(host)
    says(host, "is read again")
    until(lambda: [one.name for one in host.snapshot().replicas] == ["tiny", "other"])
    until(lambda: host.gate("other"))
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.gate()
    assert host.snapshot().agent.pid == pid
    assert host.log().count("replica tiny: warm after") == 1, "it was not touched"
    assert host.check("other") == "up ready 100%\n"
    # and one less
    host.configure(other)
    hang_up(host)
    until(lambda: [one.name for one in host.snapshot().replicas] == ["other"])
    assert host.gate(), "of a replica that is no longer its own it closes nothing"
    assert host.check() == "up drain\n"


def test_the_same_file_is_no_news(host: Host) -> None:
    serving(host)
    hang_up(host)
    says(host, "says nothing new")
    assert host.get("/readyz")[0] == 200


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: text.replace("port =", "prt ="), "$.replicas[0]"),
        (lambda text: text.replace("tick = 0.5", "tick = -1"), "$.tick"),
        (lambda text: text.replace("tick = 0.5", 'tick = "often"'), "$.tick"),
        (lambda text: text + "\nsurprise = 1\n[[", "not valid TOML"),
        (
            lambda text: text.replace('engine = "vllm"', 'engine = "magic"'),
            "unknown engine 'magic'",
        ),
        (
            lambda text: text.replace("observe_only = []", 'observe_only = ["gpu-losst"]'),
            "no rule is named gpu-losst",
        ),
        (lambda _: "", "host"),
        (lambda _: "\x00\x01", "not valid TOML"),
    ],
)
def test_a_bad_file_is_refused_and_the_old_one_stays(
    host: Host, change: Any, complaint: str
) -> None:
    serving(host)
    host.config_path.write_text(change(host.config_path.read_text()))
    hang_up(host)
    says(host, "SIGHUP: the old configuration stays in force")
    line = next(line for line in host.log().splitlines() if "stays in force" in line)
    assert complaint in line
    assert str(host.config_path) in line
    assert host.get("/readyz")[0] == 200
    assert host.check() == "up ready 100%\n"
    assert host.gate()


def test_a_file_that_is_gone_or_no_text_is_refused(host: Host) -> None:
    serving(host)
    host.config_path.write_bytes(bytes(range(256)) * 9)
    hang_up(host)
    says(host, "stays in force")
    host.config_path.unlink()
    hang_up(host)
    says(host, "stays in force", 2)
    assert "No such file" in host.log()
    host.config_path.mkdir()
    hang_up(host)
    says(host, "stays in force", 3)
    assert host.get("/readyz")[0] == 200


def test_a_port_that_is_taken_is_refused(host: Host) -> None:
    one = serving(host)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host.configure(one, check_listen=f"127.0.0.1:{taken.getsockname()[1]}")
        hang_up(host)
        says(host, "stays in force")
    assert "Address already in use" in host.log()
    assert host.check() == "up ready 100%\n"


def test_other_ports_and_another_group(host: Host) -> None:
    one = serving(host)
    before = host.port
    host.port, host.check_port = free_port(), free_port()
    group = grp.getgrgid(65534).gr_name if os.geteuid() == 0 else None
    host.configure(one, control_group=group)
    hang_up(host)
    says(host, "is read again")
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.check() == "up ready 100%\n"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", before), timeout=5)
    final = host.ask(DRAIN)
    assert isinstance(final, Done)
    assert final.results[0].state == "drained"
    if group:
        assert host.control_path.stat().st_gid == 65534
        assert host.control_path.stat().st_mode & 0o777 == 0o660


def test_no_agent_check_any_more(host: Host) -> None:
    one = serving(host)
    host.configure(one, check_listen=None)
    hang_up(host)
    says(host, "is read again")
    until(lambda: host.get("/readyz")[0] == 200)
    with pytest.raises(OSError, match="refused"):
        host.check()


@needs_another_user
def test_reading_the_file_again_goes_over_no_drain(host: Host) -> None:
    one = serving(host)
    host.nginx.hold(one.port, 2)
    waiting = host.asking(DRAIN)
    until(lambda: counts(host, 2))
    before = host.record().drain
    host.configure(one, drain_seconds=60.0)
    hang_up(host)
    says(host, "is read again")
    until(lambda: host.phase() == "draining")
    now = host.record().drain
    assert before is not None
    assert now is not None
    assert (now.begun, now.deadline) == (before.begun, before.deadline)
    host.nginx.let_go()
    until(lambda: host.phase() == "drained")
    assert not host.gate()
    try:
        final = waiting.last_word()
    except ControlError as error:
        assert "what it began it carries on" in str(error)  # noqa: PT017 - either is an answer
    else:
        assert isinstance(final, Done)


def test_a_burst_of_them(host: Host) -> None:
    one = serving(host)
    for number in range(30):
        host.configure(one, drain_seconds=float(100 + number))
        hang_up(host)
        time.sleep(0.01 * (number % 4))  # another moment each time: there is nothing to wait for
    until(lambda: host.get("/readyz")[0] == 200)
    host.turns()
    assert host.gate()
    assert host.stop() < PROMPT
    assert "Traceback" not in host.log()
