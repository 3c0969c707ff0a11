"""Drains that people ask the running agent for, over its control socket."""

from __future__ import annotations

import json
import time

import pytest
from farrier_agent.control.errors import UsageError
from farrier_agent.control.protocol import Done, Drain, Failed, Ready, Report, Status

from tests.agent.host import PROMPT, Host, replica, until
from tests.agent.replicas import UNIT, counts, needs_another_user, result, serving, two_that_serve
from tests.agent.standin import Client

pytestmark = needs_another_user

DRAIN = Drain(replicas=("tiny",), wait=True, reason="a new driver")
READY = Ready(replicas=("tiny",), wait=True)


# -- a drain ---------------------------------------------------------------------------------


def test_a_drain_waits_for_the_last_request(host: Host) -> None:
    port = serving(host).port
    host.nginx.hold(port, 3)
    until(lambda: host.replica().in_flight == 3)
    draining = host.asking(DRAIN)
    until(lambda: counts(host, 3))
    assert not host.gate()
    assert host.check() == "up drain\n"
    assert host.get("/readyz")[0] == 503
    assert any("draining" in reason and "a new driver" in reason for reason in host.reasons())
    until(lambda: host.value("farrier_replica_in_flight", replica="tiny") == 3)
    said = host.replica()
    assert (said.phase, said.gate, said.in_flight) == ("draining", "closed", 3)
    assert said.drain is not None
    assert said.drain.reasons == ("a new driver",)
    assert not said.drain.over
    host.nginx.let_go(2)
    until(lambda: counts(host, 1))
    assert not draining.over
    host.nginx.let_go()
    ended = time.monotonic()
    last = result(draining.last_word())
    assert time.monotonic() - ended >= 1.9, "three looks, a second apart"
    assert (last.state, last.code, last.changed, last.cut) == ("drained", 0, True, 0)
    assert last.in_flight == 3
    assert last.seconds is not None
    assert {one.in_flight for one in draining.progress} >= {3, 1, 0}
    until(lambda: host.phase() == "drained")
    assert host.replica().asked_by == host.record().by
    assert "root" in host.record().by
    assert "farrier-agent ready tiny" in host.reasons()[0]


def test_a_stream_goes_on_to_its_end_behind_the_closed_gate(host: Host) -> None:
    port = serving(host).port
    streams = host.nginx.stream(port, 5, tokens=150)
    draining = host.asking(DRAIN)
    until(lambda: not host.gate())
    assert all(stream.whole for stream in streams)
    assert result(draining.last_word()).state == "drained"
    assert Client(port).executed()["ends"].keys() == {"length"}


def test_while_it_settles_requests_are_still_let_in(host: Host) -> None:
    serving(host, settle_seconds=3.0)
    begun = time.monotonic()
    draining = host.asking(DRAIN)
    until(lambda: host.phase() == "draining")
    assert host.check() == "up drain\n"
    assert host.get("/readyz")[0] == 503
    assert host.gate(), "the gateway has to hear of it first"
    drain = host.replica().drain
    assert drain is not None
    assert drain.settling
    until(lambda: not host.gate())
    assert 2.9 <= time.monotonic() - begun < 3 + PROMPT
    assert result(draining.last_word()).state == "drained"
    assert any("still accepted" in one.text for one in draining.progress)


def test_a_drain_asked_for_twice_is_one(host: Host) -> None:
    port = serving(host).port
    host.nginx.hold(port, 1)
    first = host.asking(DRAIN)
    until(lambda: counts(host, 1))
    begun = host.record().drain
    second = host.asking(Drain(replicas=("tiny",), wait=True, reason="a new kernel"))
    until(lambda: len(getattr(host.record().drain, "askers", ())) == 2)
    now = host.record().drain
    assert begun is not None
    assert now is not None
    assert now.begun == begun.begun
    assert host.replica().drain is not None
    until(lambda: getattr(host.replica().drain, "reasons", 0) == ("a new driver", "a new kernel"))
    host.nginx.let_go()
    assert result(first.last_word()).changed
    assert not result(second.last_word()).changed
    third = result(host.ask(DRAIN))
    assert (third.state, third.code, third.changed) == ("drained", 0, False)


def test_without_waiting_the_last_word_comes_at_once(host: Host) -> None:
    port = serving(host).port
    host.nginx.hold(port, 1)
    begun = time.monotonic()
    last = result(host.ask(Drain(replicas=("tiny",))))
    assert time.monotonic() - begun < PROMPT
    assert (last.state, last.code) == ("draining", 0)
    host.nginx.let_go()
    until(lambda: host.phase() == "drained")


def test_an_asker_that_goes_away_takes_nothing_with_it(host: Host) -> None:
    port = serving(host).port
    host.nginx.hold(port, 1)
    asker = host.begin("drain", "tiny", "--wait")
    until(lambda: counts(host, 1))
    asker.kill()
    asker.wait()
    host.nginx.let_go()
    until(lambda: host.phase() == "drained")


def test_strangers_are_said_and_not_waited_for(host: Host) -> None:
    port = serving(host).port
    host.nginx.hold(port, 2, uid=12345)
    until(lambda: host.replica().strangers == 2)
    until(lambda: host.value("farrier_replica_strangers", replica="tiny") == 2)
    until(lambda: host.replica().in_flight == 0)
    assert "2 connections of uid 12345 past the gate" in host.log()
    assert result(host.ask(DRAIN)).state == "drained"


def test_what_is_not_running_is_as_drained_as_it_can_be(host: Host) -> None:
    host.configure(replica())
    host.unit(UNIT, run=1, active="inactive", sub="dead")
    host.start()
    until(lambda: host.phase() == "stopped")
    last = result(host.ask(DRAIN))
    assert (last.state, last.code) == ("stopped", 0)
    assert "does not run" in last.text


def test_all_of_a_host_and_none_that_it_does_not_have(host: Host) -> None:
    two_that_serve(host)
    final = host.ask(Drain(all=True, wait=True))
    assert isinstance(final, Done)
    assert {(one.replica, one.state) for one in final.results} == {
        ("a", "drained"),
        ("b", "drained"),
    }
    missing = host.ask(Ready(replicas=("a", "c")))
    assert isinstance(missing, Failed)
    assert missing.code == UsageError.code
    assert missing.error == "no replica is named 'c' (this host has: a, b)"
    assert host.phase("a") == "drained", "nothing was done for the one that exists"


# -- taken back ------------------------------------------------------------------------------


def test_ready_while_it_settles_leaves_the_gate_as_it_is(host: Host) -> None:
    serving(host, settle_seconds=30.0)
    draining = host.asking(DRAIN)
    until(lambda: host.phase() == "draining")
    last = result(host.ask(READY))
    assert (last.state, last.code) == ("ready", 0)
    assert host.check() == "up ready 100%\n"
    drained = result(draining.last_word())
    assert (drained.state, drained.code) == ("ready", 1), "who waits for it has to know"
    assert "ready was asked for" in drained.text
    assert host.log().count("warm after") == 1


def test_ready_takes_a_drain_back_at_once_while_it_counts(host: Host) -> None:
    port = serving(host).port
    host.nginx.hold(port, 1)
    draining = host.asking(DRAIN)
    until(lambda: counts(host, 1))
    assert result(host.ask(READY)).state == "ready"
    assert host.gate()
    assert result(draining.last_word()).code == 1
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.log().count("warm after") == 1, "it never was anything but warm"


def test_a_drained_replica_shows_that_it_can_before_it_serves_again(host: Host) -> None:
    port = serving(host).port
    assert result(host.ask(DRAIN)).state == "drained"
    Client(port).manners(answers="500")
    waiting = host.asking(READY)
    until(lambda: host.phase() == "warming")
    assert not host.gate()
    Client(port).manners(answers="well")
    assert result(waiting.last_word()).state == "ready"
    assert host.gate()
    assert host.log().count("warm after") == 2


def test_a_gate_opened_by_hand_while_drained_is_said(host: Host) -> None:
    serving(host)
    host.ask(DRAIN)
    (host.gates / "tiny").touch()
    until(lambda: "by hand" in (host.replica().detail or ""))
    assert host.gate()


def test_a_gate_opened_by_hand_while_drained_is_closed_by_a_drain(host: Host) -> None:
    serving(host)
    host.ask(DRAIN)
    (host.gates / "tiny").touch()
    until(lambda: host.replica().gate == "open")
    assert result(host.ask(DRAIN)).state == "drained"
    assert not host.gate()


# -- deadlines -------------------------------------------------------------------------------


def test_extend_waits_on_and_says_so(host: Host) -> None:
    port = serving(host).port
    host.nginx.hold(port, 1)
    draining = host.asking(Drain(replicas=("tiny",), wait=True, deadline=1.0, on_deadline="extend"))
    until(lambda: "drain extended, 1 requests in flight" in host.log())
    assert host.phase() == "draining"
    drain = host.replica().drain
    assert drain is not None
    assert drain.deadline_at > time.time() + 30
    host.nginx.let_go()
    last = result(draining.last_word())
    assert (last.state, last.code, last.cut) == ("drained", 0, 0)


def test_abort_serves_on(host: Host) -> None:
    port = serving(host).port
    host.nginx.hold(port, 2)
    last = result(host.ask(Drain(replicas=("tiny",), wait=True, deadline=1.0, on_deadline="abort")))
    assert (last.state, last.code) == ("ready", 1)
    assert "deadline passed" in last.text
    until(host.gate)
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.replica().in_flight == 2


@pytest.mark.parametrize("count", [0, 1, 4])
def test_force_says_how_many_it_cuts(host: Host, count: int) -> None:
    port = serving(host).port
    host.nginx.hold(port, 6)
    until(lambda: host.replica().in_flight == 6)
    draining = host.asking(Drain(replicas=("tiny",), wait=True, deadline=4.0, on_deadline="force"))
    until(lambda: counts(host, 6))
    host.nginx.let_go(6 - count)
    last = result(draining.last_word())
    assert (last.state, last.cut, last.in_flight) == ("drained", count, 6)
    drain = host.replica().drain
    assert drain is not None
    assert (drain.forced, drain.cut) == ((True, count) if count else (False, None))
    assert not host.gate()


def test_force_at_once_says_how_many_it_cuts(host: Host) -> None:
    port = serving(host).port
    host.nginx.hold(port, 2)
    last = result(host.ask(Drain(replicas=("tiny",), wait=True, deadline=0.0, on_deadline="force")))
    assert (last.state, last.cut) == ("drained", 2)
    assert not host.gate()


def test_the_configured_deadline_and_policy_hold_where_nobody_says_otherwise(host: Host) -> None:
    port = serving(host, drain_seconds=1.0, drain_policy="force").port
    host.nginx.hold(port, 2)
    last = result(host.ask(DRAIN))
    assert (last.state, last.cut) == ("drained", 2)


def test_one_who_forces_is_not_held_up_by_one_who_waits(host: Host) -> None:
    port = serving(host).port
    host.nginx.hold(port, 2)
    patient = host.asking(DRAIN)
    until(lambda: counts(host, 2))
    hasty = host.ask(Drain(replicas=("tiny",), wait=True, deadline=1.0, on_deadline="force"))
    assert (result(hasty).state, result(hasty).cut) == ("drained", 2)
    assert result(patient.last_word()).cut == 2


# -- the command line ------------------------------------------------------------------------


def test_the_command_line_tells_how_it_gets_on(host: Host) -> None:
    port = serving(host).port
    host.nginx.hold(port, 2)
    asker = host.begin("drain", "tiny", "--wait", "--reason=a new driver")
    until(lambda: counts(host, 2))
    host.nginx.let_go()
    out, err = asker.communicate(timeout=20)
    assert asker.returncode == 0
    assert "tiny: drained, after " in out
    assert "tiny: draining, 2 in flight" in err
    again = host.verb("drain", "tiny")
    assert (again.returncode, again.stdout) == (
        0,
        "tiny: drained already, 0 in flight when it began\n",
    )
    programs = host.verb("ready", "--all", "--wait", "--json")
    assert programs.returncode == 0
    assert json.loads(programs.stdout.splitlines()[-1])["kind"] == "done"
    unknown = host.verb("drain", "large")
    assert unknown.returncode == 2
    assert "no replica is named 'large' (this host has: tiny)" in unknown.stderr
    assert "next: farrier-agent status" in unknown.stderr


def test_an_aborted_drain_is_a_failure_of_the_command(host: Host) -> None:
    port = serving(host).port
    host.nginx.hold(port, 1)
    done = host.verb("drain", "tiny", "--wait", "--deadline=1", "--on-deadline=abort")
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert "deadline passed" in done.stdout


def test_the_status_over_the_socket_is_the_one_over_http(host: Host) -> None:
    serving(host)
    final = host.ask(Status())
    assert isinstance(final, Report)
    said, shown = final.status, host.snapshot()
    assert (said.ready, said.agent, said.replicas[0].phase) == (True, shown.agent, "ready")
    people = host.command("status", f"--config={host.config_path}")
    assert people.returncode == 0
    assert "gpu01: ready" in people.stdout
    programs = host.command("status", "--json", f"--config={host.config_path}")
    assert json.loads(programs.stdout)["replicas"][0]["phase"] == "ready"
