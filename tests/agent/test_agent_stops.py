"""Engines that are stopped under load: by systemd, by themselves.

The units are the stand-in's, with the programs that the role writes into real ones.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from farrier_agent.config import Replica
from farrier_agent.control.protocol import Drain, Ready, Restart
from farrier_agent.draining.record import Phase

from tests.agent.host import PROMPT, Host, until
from tests.agent.replicas import UNIT, counts, ends, needs_another_user, result, run_by_its_unit
from tests.agent.standin import Client

pytestmark = needs_another_user

READY = Ready(replicas=("tiny",), wait=True)
RESTART = Restart(replicas=("tiny",), wait=True, reason="a new version")


def serving(host: Host, *options: str, **fields: Any) -> Replica:
    """One replica whose unit runs its engine, with ExecStop= as the role writes it."""
    return run_by_its_unit(host, f"--account={host.root / 'account'}", *options, **fields)


def is_so(host: Host, active: str, sub: str) -> bool:
    now = host.systemd.now(UNIT)
    return (now["ActiveState"], now["SubState"]) == (active, sub)


# -- systemd stops it ------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_systemctl_waits_for_the_last_stream(host: Host, verb: str) -> None:
    one = serving(host, "--on-sigterm=cut")
    before = host.systemd.now(UNIT)["InvocationID"]
    streams = host.nginx.stream(one.port, 10, tokens=150)
    host.systemd.job(verb, UNIT)
    until(lambda: not host.gate())
    until(lambda: host.record().stopping)
    assert host.check() == "up drain\n"
    assert host.phase() == "draining"
    assert all(stream.whole for stream in streams)
    if verb == "stop":
        until(lambda: is_so(host, "inactive", "dead"))
        until(lambda: host.phase() == "stopped")
        assert not host.gate()
    else:
        until(lambda: host.get("/readyz")[0] == 200)
        assert host.systemd.now(UNIT)["InvocationID"] != before
    assert ends(host) == {"length": 10}
    last = host.replica().last_drain
    assert last is not None
    assert (last.in_flight_at_close, last.forced) == (10, False)
    assert last.asked_by == ("systemd",)
    assert host.replica().drain is None


def test_once_systemd_stops_it_nothing_takes_that_back(host: Host) -> None:
    one = serving(host)
    host.nginx.hold(one.port, 2)
    host.systemd.job("stop", UNIT)
    until(lambda: host.record().stopping)
    ready = result(host.ask(READY))
    assert (ready.code, ready.changed) == (3, False)
    assert "nothing can take back" in ready.text
    assert "systemctl start" in ready.text
    abort = host.ask(Drain(replicas=("tiny",), deadline=1.0, on_deadline="abort"))
    assert result(abort).code == 3
    assert "only --on-deadline extend and force are left" in result(abort).text
    assert host.log().count("refused to root") == 2
    assert not host.gate()
    forced = host.ask(Drain(replicas=("tiny",), wait=True, deadline=0.0, on_deadline="force"))
    assert (result(forced).state, result(forced).cut) == ("drained", 2)
    until(lambda: is_so(host, "inactive", "dead"))
    last = host.record().last_drain
    assert last is not None
    assert (last.forced, last.cut) == (True, 2)


def test_a_replica_that_was_drained_stops_at_once_and_comes_back_open(host: Host) -> None:
    serving(host)
    host.ask(Drain(replicas=("tiny",), wait=True))
    begun = time.monotonic()
    host.systemd.job("restart", UNIT)
    until(lambda: host.record().phase is not Phase.DRAINED)
    assert time.monotonic() - begun < PROMPT
    until(host.gate)
    assert host.replica().drain is None


def test_a_start_during_a_stop_is_obeyed_after_it(host: Host) -> None:
    one = serving(host)
    host.nginx.hold(one.port, 1)
    host.systemd.job("stop", UNIT)
    until(lambda: counts(host, 1))
    host.systemd.job("start", UNIT)
    host.nginx.let_go()
    until(lambda: host.record().phase is Phase.WARMING)
    until(host.gate)
    assert host.log().count("-> warming: the engine runs") == 2


def test_a_run_that_the_agent_never_saw_is_drained_too(host: Host) -> None:
    """Started while systemd told nothing: the record says that no engine runs."""
    one = serving(host)
    host.systemd.job("stop", UNIT)
    until(lambda: host.phase() == "stopped")
    host.systemd.order(hang=["GetAll"])
    host.systemd.job("start", UNIT)
    until(lambda: is_so(host, "active", "running"))
    until(Client(one.port).listens)
    streams = host.nginx.stream(one.port, 2, tokens=100)
    host.systemd.job("stop", UNIT)
    until(lambda: counts(host, 2))
    assert all(stream.whole for stream in streams)
    until(lambda: is_so(host, "inactive", "dead"))
    assert ends(host) == {"length": 2}
    assert "-> stopped: the unit is not running" not in host.log(), "that was another run"


def test_the_agent_that_dies_during_a_stop_leaves_it_to_the_program(host: Host) -> None:
    one = serving(host)
    streams = host.nginx.stream(one.port, 4, tokens=300)
    host.systemd.job("stop", UNIT)
    until(lambda: counts(host, 4))
    host.stop(signal.SIGKILL)
    assert all(stream.whole for stream in streams)
    until(lambda: is_so(host, "inactive", "dead"))
    assert ends(host) == {"length": 4}
    host.start()
    until(lambda: host.phase() == "stopped")
    assert not host.gate()


def test_an_agent_that_comes_back_during_a_stop_carries_it_on(host: Host) -> None:
    one = serving(host)
    host.nginx.hold(one.port, 2)
    host.systemd.job("stop", UNIT)
    until(lambda: counts(host, 2))
    began = host.record().stop_began
    host.stop(signal.SIGKILL)
    host.start()
    until(lambda: host.phase() == "draining")
    assert host.record().stop_began == began
    assert result(host.ask(READY)).code == 3
    host.nginx.let_go()
    until(lambda: is_so(host, "inactive", "dead"))
    until(lambda: host.phase() == "stopped")
    last = host.replica().last_drain
    assert last is not None
    assert not last.forced


def test_the_program_that_is_killed_is_followed_by_its_second_run(host: Host) -> None:
    one = serving(host)
    streams = host.nginx.stream(one.port, 3, tokens=300)
    host.systemd.job("stop", UNIT)
    until(lambda: counts(host, 3))
    (pid,) = programs(host)
    os.kill(pid, signal.SIGKILL)
    assert all(stream.whole for stream in streams)
    until(lambda: is_so(host, "inactive", "dead"))
    assert ends(host) == {"length": 3}


def programs(host: Host) -> list[int]:
    """The processes of the unit's ExecStop=, by their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if (
            b"farrier_agent.draining.stop" in words
            and f"--state-dir={host.records}".encode() in words
        ):
            found.append(int(path.parent.name))
    return found


# -- it ends by itself -----------------------------------------------------------------------


def test_an_engine_that_crashes_is_warmed_up_before_it_serves_again(host: Host) -> None:
    one = serving(host)
    host.engine_unit(one, "--start-delay=1", restart_seconds=0.2)
    os.kill(host.systemd.now(UNIT)["MainPID"], signal.SIGKILL)
    until(lambda: not host.gate())
    until(lambda: host.phase() == "warming")
    assert not host.gate()
    until(host.gate)
    until(lambda: host.replica().restarts == 1)
    until(lambda: host.value("farrier_replica_restarts", replica="tiny") == 1)


def test_a_crash_ends_no_drain(host: Host) -> None:
    one = serving(host)
    host.engine_unit(one, restart_seconds=0.2)
    host.nginx.hold(one.port, 3)
    host.ask(Drain(replicas=("tiny",), reason="a new driver"))
    until(lambda: counts(host, 3))
    os.kill(host.systemd.now(UNIT)["MainPID"], signal.SIGKILL)
    until(lambda: "warm, and kept closed: a new driver" in host.log())
    host.turns()
    assert not host.gate()
    assert host.phase() == "drained"
    last = host.replica().last_drain
    assert last is not None
    assert (last.forced, last.cut) == (True, 3), "they died with their engine"
    assert result(host.ask(READY)).state == "ready"
    assert host.gate()


def test_an_engine_that_crashed_while_no_agent_ran_is_not_served_cold(host: Host) -> None:
    one = serving(host)
    host.engine_unit(one, "--start-delay=1", restart_seconds=0.2)
    host.stop(signal.SIGKILL)
    before = host.systemd.now(UNIT)["MainPID"]
    os.kill(before, signal.SIGKILL)
    until(lambda: host.systemd.now(UNIT)["MainPID"] not in {0, before})
    assert not host.gate(), "its unit closed it"
    host.start()
    until(lambda: host.phase() == "warming")
    assert not host.gate()
    until(host.gate)
    assert Client(one.port).executed()["begun"] >= 2
