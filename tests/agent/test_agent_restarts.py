"""Engines that people restart under load, over the running agent's control socket.

The units are the stand-in's, with the programs that the role writes into real ones.
"""

from __future__ import annotations

from typing import Any

import pytest
from farrier_agent.config import Replica
from farrier_agent.control.protocol import Ready, Restart

from tests.agent.host import PROMPT, Host, until
from tests.agent.replicas import UNIT, counts, ends, needs_another_user, result, run_by_its_unit

pytestmark = needs_another_user

READY = Ready(replicas=("tiny",), wait=True)
RESTART = Restart(replicas=("tiny",), wait=True, reason="a new version")


def serving(host: Host, *options: str, **fields: Any) -> Replica:
    """One replica whose unit runs its engine, with ExecStop= as the role writes it."""
    return run_by_its_unit(host, f"--account={host.root / 'account'}", *options, **fields)


@pytest.mark.parametrize("manner", ["cut", "abort", "500", "hang", "ignore"])
def test_a_restart_cuts_nothing_whatever_the_engines_manners(host: Host, manner: str) -> None:
    one = serving(host, f"--on-sigterm={manner}")
    manners = f"--account={host.root / 'account'}", f"--on-sigterm={manner}"
    host.engine_unit(one, *manners, stop=[host.stop_program(one)], stop_seconds=1.0)
    before = host.systemd.now(UNIT)["InvocationID"]
    streams = host.nginx.stream(one.port, 10, tokens=100)
    restart = host.asking(RESTART)
    assert all(stream.whole for stream in streams)
    last = result(restart.last_word(40))
    assert (last.state, last.code, last.cut) == ("ready", 0, 0)
    assert host.gate()
    assert host.systemd.now(UNIT)["InvocationID"] != before
    assert ends(host) == {"length": 10}
    assert {"draining", "warming"} <= {one.state for one in restart.progress}
    assert len(host.systemd.calls("RestartUnit")) == 1


def test_a_restart_asked_for_twice_is_one(host: Host) -> None:
    one = serving(host)
    host.nginx.hold(one.port, 1)
    first, second = host.asking(RESTART), host.asking(RESTART)
    until(lambda: counts(host, 1))
    host.nginx.let_go()
    assert result(first.last_word()).state == "ready"
    assert result(second.last_word()).state == "ready"
    assert len(host.systemd.calls("RestartUnit")) == 1


def test_one_who_restarts_by_force_is_not_held_up_by_one_who_waits(host: Host) -> None:
    one = serving(host)
    host.nginx.hold(one.port, 2)
    patient = host.asking(RESTART)
    until(lambda: counts(host, 2))
    hasty = host.asking(Restart(replicas=("tiny",), wait=True, deadline=1.0, on_deadline="force"))
    last = result(hasty.last_word())
    assert (last.state, last.cut) == ("ready", 2)
    assert result(patient.last_word()).state == "ready"


def test_a_forced_restart_says_how_many_it_cut(host: Host) -> None:
    one = serving(host, "--on-sigterm=cut")
    streams = host.nginx.stream(one.port, 5, tokens=3000)
    done = host.ask(Restart(replicas=("tiny",), wait=True, deadline=1.0, on_deadline="force"))
    last = result(done)
    assert (last.state, last.code, last.cut) == ("ready", 0, 5)
    assert not any(stream.whole for stream in streams)
    drained = host.replica().last_drain
    assert drained is not None
    assert (drained.forced, drained.cut) == (True, 5)


def test_a_restart_that_is_taken_back_leaves_the_engine_alone(host: Host) -> None:
    one = serving(host)
    host.nginx.hold(one.port, 1)
    restart = host.asking(RESTART)
    until(lambda: counts(host, 1))
    assert result(host.ask(READY)).state == "ready"
    last = result(restart.last_word())
    assert (last.state, last.code) == ("ready", 1)
    assert "taken back" in last.text
    host.nginx.let_go()
    host.turns()
    assert host.systemd.calls("RestartUnit") == []


def test_an_engine_that_does_not_come_back_is_said(host: Host) -> None:
    one = serving(host)
    host.engine_unit(one, "--exit-at-start=3")
    last = result(host.ask(RESTART))
    assert last.code == 1
    assert f"journalctl -u {UNIT} -e" in last.text
    until(lambda: host.phase() == "failed")
    assert not host.gate()


def test_a_systemd_that_refuses_is_said_and_the_replica_stays_drained(host: Host) -> None:
    serving(host)
    denied = ["org.freedesktop.DBus.Error.AccessDenied", "Permission denied"]
    host.systemd.order(fail={"RestartUnit": denied})
    last = result(host.ask(RESTART))
    assert (last.state, last.code) == ("drained", 1)
    assert f"systemd does not let this user restart {UNIT}" in last.text
    assert f"next: systemctl restart {UNIT}" in last.text
    assert not host.gate()
    host.systemd.order(fail=None)
    assert result(host.ask(RESTART)).state == "ready"


def test_a_stopped_replica_is_started_by_a_restart(host: Host) -> None:
    serving(host)
    host.systemd.job("stop", UNIT)
    until(lambda: host.phase() == "stopped")
    last = result(host.ask(RESTART))
    assert (last.state, last.code) == ("ready", 0)
    assert host.gate()


def test_a_restart_whose_asker_went_away_goes_on(host: Host) -> None:
    one = serving(host)
    host.nginx.hold(one.port, 1)
    last = result(host.ask(Restart(replicas=("tiny",))))
    assert (last.state, last.code) == ("draining", 0)
    assert "goes on" in last.text
    host.nginx.let_go()
    until(lambda: host.systemd.calls("RestartUnit"))
    until(lambda: host.get("/readyz")[0] == 200)


def test_an_agent_that_is_stopped_during_a_restart_restarts_nothing_later(host: Host) -> None:
    """What it drained stays drained, until a person says what is to become of it."""
    one = serving(host)
    host.nginx.hold(one.port, 1)
    host.ask(Restart(replicas=("tiny",)))
    until(lambda: counts(host, 1))
    assert host.stop() < PROMPT
    host.nginx.let_go()
    host.start()
    until(lambda: host.phase() == "drained")
    host.turns()
    assert host.systemd.calls("RestartUnit") == []
    assert not host.gate()
