"""The running agent and its replicas: when gates open, and that nothing else moves them."""

from __future__ import annotations

import signal

import pytest

from tests.agent.host import Host, free_port, replica, unit_properties, until

UNIT = "engine-tiny.service"


def serving(host: Host) -> int:
    """A host with one replica whose gate the agent has opened. Returns the engine's port."""
    port = free_port()
    host.configure(replica(port=port))
    host.unit(UNIT, run=1)
    host.engine(port, "tiny")
    host.start()
    until((host.gates / "tiny").exists)
    until(lambda: host.get("/readyz")[0] == 200)
    return port


def test_the_gate_opens_when_the_engine_serves_and_not_before(host: Host) -> None:
    port = free_port()
    gate = host.gates / "tiny"
    host.configure(replica(port=port))
    host.unit(UNIT, run=1, active="activating", sub="start-pre")
    host.start()
    until(lambda: host.replica().detail == f"{UNIT} is activating (start-pre)")
    host.unit(UNIT, run=1)
    until(lambda: "nothing listens" in (host.replica().detail or ""))
    assert host.value("farrier_replica_up", replica="tiny") == 0
    host.engine(port, "tiny", "--start-delay=2")
    until(lambda: host.replica().detail == "/health answers 503")
    assert not gate.exists()
    assert host.get("/readyz")[0] == 503
    assert host.reasons() == ["replica tiny: not up: /health answers 503"]
    assert host.value("farrier_replica_gate_open", replica="tiny") == 0
    until(gate.exists)
    assert gate.read_bytes() == b""
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.value("farrier_replica_up", replica="tiny") == 1
    assert host.value("farrier_replica_gate_open", replica="tiny") == 1
    assert host.value("farrier_unit_state", unit=UNIT, state="active") == 1
    assert host.value("farrier_unit_state", unit=UNIT, state="failed") == 0
    assert host.log().count("replica tiny: answers, gate opened") == 1


def test_an_engine_with_another_model_gets_no_traffic(host: Host) -> None:
    port = free_port()
    host.configure(replica(port=port))
    host.unit(UNIT, run=1)
    host.engine(port, "other")
    host.start()
    until(lambda: "does not name 'tiny' (it names 'other')" in (host.replica().detail or ""))
    host.turns()
    assert not (host.gates / "tiny").exists()


def test_something_else_on_the_port_of_a_stopped_unit_is_not_the_replica(host: Host) -> None:
    port = free_port()
    host.configure(replica(port=port))
    host.unit(UNIT, run=1, active="failed", sub="failed")
    host.engine(port, "tiny")
    host.start()
    until(lambda: host.replica().detail == f"{UNIT} is failed (failed)")
    host.turns()
    assert not (host.gates / "tiny").exists()
    assert host.value("farrier_replica_up", replica="tiny") == 0
    assert host.value("farrier_unit_state", unit=UNIT, state="failed") == 1


def test_a_gate_closed_by_hand_stays_closed_until_the_engine_starts_again(host: Host) -> None:
    serving(host)
    gate = host.gates / "tiny"
    gate.unlink()
    until(lambda: host.replica().gate == "closed")
    host.turns()
    assert not gate.exists()
    assert "closed by hand" in host.reasons()[0]
    assert f"touch {gate}" in host.reasons()[0]
    # a new agent does not know better
    host.stop()
    host.start()
    host.turns()
    assert not gate.exists()
    # a new engine does
    host.unit(UNIT, run=2)
    until(gate.exists)
    until(lambda: host.get("/readyz")[0] == 200)


def test_a_gate_opened_by_hand_is_taken_as_it_is(host: Host) -> None:
    port = free_port()
    host.configure(replica(port=port))
    host.unit(UNIT, run=1)
    host.start()
    until(lambda: host.replica().up is False)
    (host.gates / "tiny").touch()
    until(lambda: host.replica().gate == "open")
    (host.gates / "tiny").unlink()
    host.engine(port, "tiny")
    until(lambda: host.replica().up)
    host.turns()
    assert not (host.gates / "tiny").exists()


@pytest.mark.parametrize(
    "then",
    [
        unit_properties(2, "activating", "auto-restart"),
        unit_properties(1, "failed", "failed"),
        unit_properties(1, "deactivating", "stop"),
    ],
)
def test_an_engine_that_ends_while_its_gate_opens_gets_it_closed_again(
    host: Host, then: dict[str, str]
) -> None:
    """The unit closed its gate when it ended, before the agent opened it: nobody else would."""
    port = free_port()
    gate = host.gates / "tiny"
    host.configure(replica(port=port))
    host.unit(UNIT, run=1)
    host.systemd(once={"exists": str(gate), "then": {"units": {UNIT: then}}})
    host.engine(port, "tiny")
    host.start()
    until(lambda: "closed again" in host.log())
    assert not gate.exists()
    host.turns()
    assert not gate.exists()
    assert host.log().count("closed again") == 1
    host.systemd(once=None)
    host.unit(UNIT, run=3)
    until(gate.exists)


@pytest.mark.parametrize(("run", "stays_open"), [(1, True), (2, False)])
def test_an_opening_that_systemd_could_not_confirm_is_confirmed_or_taken_back(
    host: Host, run: int, stays_open: bool
) -> None:
    """Between the opening and its confirmation systemd falls silent, and the agent is killed."""
    port = free_port()
    gate = host.gates / "tiny"
    host.configure(replica(port=port))
    host.unit(UNIT, run=1)
    host.systemd(once={"exists": str(gate), "then": {"fail": "Failed to connect to bus"}})
    engine = host.engine(port, "tiny")
    host.start()
    until(lambda: "collector units failed" in host.log())
    assert gate.exists()
    host.stop(signal.SIGKILL)
    engine.kill()  # what is left of the first run must not decide
    host.systemd(once=None)
    host.unit(UNIT, run=run)
    host.start()
    until(lambda: host.replica().up is False)
    host.turns()
    assert gate.exists() == stays_open
    assert ("closed again" in host.log()) != stays_open


def test_a_gate_closed_by_hand_before_its_opening_was_confirmed_stays_closed(host: Host) -> None:
    port = free_port()
    gate = host.gates / "tiny"
    host.configure(replica(port=port))
    host.unit(UNIT, run=1)
    host.systemd(once={"exists": str(gate), "then": {"fail": "Failed to connect to bus"}})
    host.engine(port, "tiny")
    host.start()
    until(lambda: "collector units failed" in host.log())
    gate.unlink()
    host.systemd(once=None)
    until(lambda: host.replica().up)
    host.turns()
    assert not gate.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_end_of_the_agent_moves_no_gate(host: Host, number: int) -> None:
    serving(host)
    (host.gates / "foreign").touch()
    seconds = host.stop(number)
    assert seconds < 2
    assert sorted(path.name for path in host.gates.iterdir()) == ["foreign", "tiny"]
    host.start()
    until(lambda: host.get("/readyz")[0] == 200)
    assert sorted(path.name for path in host.gates.iterdir()) == ["foreign", "tiny"]


def test_an_engine_that_fails_keeps_the_gate_that_its_unit_left(
    host: Host, tmp_path: object
) -> None:
    """Closing is the unit's part: the agent reports, and changes nothing (rule 1)."""
    serving(host)
    host.unit(UNIT, run=1, active="failed", sub="failed")
    until(lambda: host.replica().up is False)
    host.turns()
    assert (host.gates / "tiny").exists()
    assert host.reasons() == [f"replica tiny: not up: {UNIT} is failed (failed)"]


def test_losing_systemd_changes_nothing_and_is_said(host: Host) -> None:
    serving(host)
    host.systemd(fail="Failed to connect to bus: No such file or directory")
    until(lambda: host.value("farrier_collector_success", collector="units") == 0)
    until(lambda: host.value("farrier_replica_up", replica="tiny") is None)
    assert host.value("farrier_unit_state", unit=UNIT, state="active") is None
    assert host.value("farrier_replica_gate_open", replica="tiny") is None
    assert any("Failed to connect to bus" in reason for reason in host.reasons())
    assert "replica tiny: its state is not known" in host.reasons()
    assert (host.gates / "tiny").exists()
    host.systemd(fail=None)
    until(lambda: host.get("/readyz")[0] == 200)


def test_a_hung_systemctl_does_not_hold_up_the_agent(host: Host) -> None:
    serving(host)
    host.systemd(hang=600)
    until(lambda: any("did not answer within 1 s" in reason for reason in host.reasons()))
    host.turns()
    assert len(host.children()) <= 1
    assert host.get("/livez")[0] == 200
    assert host.stop() < 2
    assert (host.gates / "tiny").exists()


def test_all_units_are_asked_for_in_one_call(host: Host) -> None:
    ports = free_port(), free_port()
    host.configure(*(replica(name, port) for name, port in zip("ab", ports, strict=True)))
    for name, port in zip("ab", ports, strict=True):
        host.unit(f"engine-{name}.service", run=1)
        host.engine(port, name)
    host.start()
    until(lambda: host.get("/readyz")[0] == 200)
    before = len(host.systemctl_calls())
    host.turns(4)
    for call in host.systemctl_calls()[before:]:
        assert call.endswith("-- engine-a.service engine-b.service")


def test_a_restart_is_pending_when_the_configuration_is_another(host: Host) -> None:
    serving(host)
    assert host.value("farrier_replica_restart_pending", replica="tiny") is None
    (host.started / "tiny").write_text("b" * 64 + "\n")
    until(lambda: host.value("farrier_replica_restart_pending", replica="tiny") == 1)
    assert "restart pending" in host.log()
    (host.started / "tiny").write_text("a" * 64 + "\n")
    until(lambda: host.value("farrier_replica_restart_pending", replica="tiny") == 0)
    host.unit(UNIT, run=1, active="inactive", sub="dead")
    until(lambda: host.value("farrier_replica_restart_pending", replica="tiny") is None)


def test_a_gate_that_cannot_be_opened_is_a_reason(host: Host) -> None:
    port = free_port()
    host.gates.rmdir()
    host.configure(replica(port=port))
    host.unit(UNIT, run=1)
    host.engine(port, "tiny")
    host.start()
    until(lambda: any("its gate cannot be opened" in reason for reason in host.reasons()))
    assert any(str(host.gates / "tiny") in reason for reason in host.reasons())
    host.gates.mkdir()
    until((host.gates / "tiny").exists)


def test_a_lost_record_is_said_and_made_anew(host: Host) -> None:
    host.state_dir.mkdir()
    (host.state_dir / "opened.json").write_text("{")
    serving(host)
    assert "the record of opened gates is lost" in host.log()


def test_an_openai_compatible_engine(host: Host) -> None:
    port = free_port()
    host.configure(replica(port=port, engine="openai", model="org/Model-1"))
    host.unit(UNIT, run=1)
    host.engine(port, "org/Model-1")
    host.start()
    until((host.gates / "tiny").exists)
    info = {"replica": "tiny", "model": "org/Model-1", "engine": "openai"}
    until(lambda: host.value("farrier_replica_info", **info) == 1)
