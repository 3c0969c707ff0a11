"""The running agent and a systemd that is lost, hangs or fails, as far as gates go."""

from __future__ import annotations

import signal

import pytest

from tests.agent.host import PROMPT, Host, free_port, replica, unit_properties, until
from tests.agent.replicas import UNIT, serving


def test_an_opening_that_systemd_does_not_confirm_is_taken_back_and_tried_again(
    host: Host,
) -> None:
    port = free_port()
    host.configure(replica(port=port))
    host.unit(UNIT, run=1)
    failure = {"GetAll": ["org.freedesktop.DBus.Error.Failed", "not today"]}
    gate = str(host.gates / "tiny")
    host.systemd.order(once={"exists": gate, "then": {"fail": failure}})
    host.engine(port, "tiny")
    host.start()
    until(lambda: "its gate cannot be opened" in host.log())
    until(lambda: not host.gate())  # it is tried again and again
    until(lambda: host.check() == "up drain\n")
    host.systemd.order(once=None)
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.gate()


@pytest.mark.parametrize(("run", "opens"), [(1, True), (2, False)])
def test_an_opening_during_which_the_agent_was_killed_is_confirmed_or_taken_back(
    host: Host, run: int, opens: bool
) -> None:
    port = free_port()
    host.configure(replica(port=port))
    host.unit(UNIT, run=1)
    gate = str(host.gates / "tiny")
    host.systemd.order(once={"exists": gate, "then": {"hang": ["GetAll"]}})
    engine = host.engine(port, "tiny")
    host.start()
    until(host.gate)
    host.stop(signal.SIGKILL)
    assert host.gate()
    assert host.record().gate == "opening"
    engine.kill()  # what is left of the first run must not decide
    host.systemd.order(once=None, units={UNIT: unit_properties(run)})
    host.start()
    if opens:
        until(lambda: host.record().gate == "open")
    else:
        until(lambda: host.phase() == "warming")
    host.turns()
    assert host.gate() == opens


def test_a_gate_closed_by_hand_before_its_opening_was_confirmed_stays_closed(host: Host) -> None:
    port = free_port()
    host.configure(replica(port=port))
    host.unit(UNIT, run=1)
    gate = host.gates / "tiny"
    host.systemd.order(once={"exists": str(gate), "then": {"hang": ["GetAll"]}})
    host.engine(port, "tiny")
    host.start()
    until(gate.exists)
    gate.unlink()
    host.systemd.order(once=None)
    until(lambda: "closed by hand" in (host.replica().detail or ""))
    host.turns()
    assert not gate.exists()


def test_losing_systemd_changes_nothing_and_is_said(host: Host) -> None:
    serving(host)
    # An opening counts once the unit was read again after it; before that it would be taken back.
    until(lambda: host.record().gate == "open")
    host.systemd.order(drop=True)
    until(lambda: host.value("farrier_collector_success", collector="units") == 0)
    until(lambda: host.value("farrier_unit_state", unit=UNIT, state="active") is None)
    until(lambda: host.value("farrier_replica_up", replica="tiny") is None)
    until(lambda: any("no connection to the bus" in reason for reason in host.reasons()))
    until(lambda: "replica tiny: its state is not known" in host.reasons())
    assert host.gate()
    assert host.check() == "up ready 100%\n", "the gate is open, and nothing says that it is wrong"
    host.turns()
    assert host.gate()
    host.systemd.order(drop=None)
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.log().count("warm after") == 1


def test_what_happened_while_systemd_was_lost_is_seen_when_it_is_back(host: Host) -> None:
    serving(host)
    host.systemd.order(drop=True)
    until(lambda: any("connection to the bus" in reason for reason in host.reasons()))
    (host.gates / "tiny").unlink()  # as the unit of an engine that crashed and was restarted
    host.unit(UNIT, run=2)
    host.systemd.order(drop=None)
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.log().count("warm after") == 2
    assert host.record().invocation_id == f"{2:032x}"


def test_a_systemd_that_hangs_does_not_hold_up_the_agent(host: Host) -> None:
    serving(host)
    host.systemd.order(hang=["*"])
    host.unit(UNIT, run=2)
    host.turns()
    assert host.get("/livez")[0] == 200
    assert host.get("/status")[0] == 200
    assert host.check() == "up ready 100%\n"
    assert host.stop() < PROMPT
    assert host.gate()


def test_systemd_is_not_asked_again_while_nothing_changes(host: Host) -> None:
    serving(host)
    before = len(host.systemd.calls("GetAll"))
    host.turns(4)
    assert len(host.systemd.calls("GetAll")) == before
