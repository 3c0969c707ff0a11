"""The running agent and its replicas: when gates open, and who else moves them."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from farrier_agent.control.protocol import Ready
from farrier_agent.draining.record import Phase

from tests.agent.host import PROMPT, Host, free_port, replica, unit_properties, until
from tests.agent.replicas import UNIT, result, serving

READY = Ready(replicas=("tiny",), wait=True)


# -- warm-up opens ---------------------------------------------------------------------------


def test_the_gate_opens_when_the_engine_is_warm_and_not_before(host: Host) -> None:
    port = free_port()
    host.configure(replica(port=port))
    host.unit(UNIT, run=1, active="activating", sub="start-pre")
    host.start()
    until(lambda: host.phase() == "starting")
    assert host.check() == "up drain\n"
    host.unit(UNIT, run=1)
    until(lambda: "nothing listens" in (host.replica().detail or ""))
    assert host.phase() == "warming"
    until(lambda: host.value("farrier_replica_up", replica="tiny") == 0)
    host.engine(port, "tiny", "--start-delay=2")
    until(lambda: "/health answers 503" in (host.replica().detail or ""))
    assert not host.gate()
    assert host.get("/readyz")[0] == 503
    assert host.reasons() == ["replica tiny: warming: health: /health answers 503"]
    assert host.value("farrier_replica_gate_open", replica="tiny") == 0
    until(host.gate)
    assert (host.gates / "tiny").read_bytes() == b""
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.check() == "up ready 100%\n"
    assert host.value("farrier_replica_up", replica="tiny") == 1
    assert host.value("farrier_replica_gate_open", replica="tiny") == 1
    assert host.value("farrier_unit_state", unit=UNIT, state="active") == 1
    assert host.value("farrier_unit_state", unit=UNIT, state="failed") == 0
    assert host.log().count("warming -> ready: warm-up went through") == 1
    record = host.record()
    assert (record.phase, record.gate, record.invocation_id) == (Phase.READY, "open", f"{1:032x}")


def test_an_engine_with_another_model_gets_no_traffic(host: Host) -> None:
    port = free_port()
    host.configure(replica(port=port))
    host.unit(UNIT, run=1)
    host.engine(port, "other")
    host.start()
    until(lambda: "does not name 'tiny' (it names 'other')" in (host.replica().detail or ""))
    host.turns()
    assert not host.gate()


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ("500", "answers 500"),
        ("garbage", "short generation"),
        ("abort", "abort"),
        ("break", "stream"),
        ("undone", "[DONE]"),
        ("wedge", "short generation"),
    ],
)
def test_an_engine_that_is_healthy_and_cannot_generate_is_not_ready(
    host: Host, answers: str, why: str
) -> None:
    port = free_port()
    host.configure(replica(port=port), warm_up_seconds=3.0)
    host.unit(UNIT, run=1)
    host.engine(port, "tiny", f"--answers={answers}")
    host.start()
    until(lambda: host.phase() == "failed")
    said = host.replica()
    assert said.up, "it is healthy and names its model"
    assert said.reason is not None
    assert said.reason.startswith("warm-up failed: ")
    assert why in said.reason
    assert "not warm within 3 s" in said.reason
    assert any(said.reason in reason for reason in host.reasons())
    assert not host.gate()
    assert host.check() == "up drain\n"


def test_a_warm_up_that_failed_is_tried_again_by_ready_and_by_a_new_run(host: Host) -> None:
    port = free_port()
    host.configure(replica(port=port), warm_up_seconds=2.0)
    host.unit(UNIT, run=1)
    host.start()
    until(lambda: host.phase() == "failed")
    host.unit(UNIT, run=2)
    until(lambda: host.phase() == "warming")
    until(lambda: host.phase() == "failed")
    host.engine(port, "tiny")
    until(lambda: host.replica().up)
    host.turns()
    assert not host.gate(), "a person has to say so"
    last = result(host.ask(READY))
    assert (last.state, last.code) == ("ready", 0)
    assert host.gate()


def test_something_else_on_the_port_of_a_stopped_unit_is_not_the_replica(host: Host) -> None:
    port = free_port()
    host.configure(replica(port=port))
    host.unit(UNIT, run=1, active="failed", sub="failed")
    host.engine(port, "tiny")
    host.start()
    until(lambda: host.phase() == "failed")
    until(lambda: host.value("farrier_replica_up", replica="tiny") == 0)
    host.turns()
    assert not host.gate()
    assert host.value("farrier_unit_state", unit=UNIT, state="failed") == 1


def test_an_openai_compatible_engine(host: Host) -> None:
    port = free_port()
    host.configure(replica(port=port, engine="openai", model="org/Model-1"))
    host.unit(UNIT, run=1)
    host.engine(port, "org/Model-1", "--no-metrics")
    host.start()
    until(host.gate)
    info = {"replica": "tiny", "model": "org/Model-1", "engine": "openai"}
    until(lambda: host.value("farrier_replica_info", **info) == 1)


# -- and people move it ----------------------------------------------------------------------


def test_a_gate_closed_by_hand_stays_closed_until_ready_or_a_new_run(host: Host) -> None:
    serving(host)
    (host.gates / "tiny").unlink()
    until(lambda: host.replica().gate == "closed")
    host.turns()
    assert not host.gate()
    assert host.check() == "up drain\n"
    assert "closed by hand" in host.reasons()[0]
    assert "farrier-agent ready tiny" in host.reasons()[0]
    # a new agent does not know better
    host.stop()
    host.start()
    until(lambda: "closed by hand" in host.reasons()[0])
    host.turns()
    assert not host.gate()
    # a person does
    last = result(host.ask(READY))
    assert (last.state, last.code) == ("ready", 0)
    assert host.gate()
    # and so does a new engine
    (host.gates / "tiny").unlink()
    until(lambda: host.replica().gate == "closed")
    host.unit(UNIT, run=2)
    until(host.gate)
    until(lambda: host.get("/readyz")[0] == 200)


def test_a_gate_opened_by_hand_is_said_and_left(host: Host) -> None:
    """Before the engine is warm: nobody but a person knows why."""
    port = free_port()
    host.configure(replica(port=port))
    host.unit(UNIT, run=1)
    host.start()
    until(lambda: host.phase() == "warming")
    (host.gates / "tiny").touch()
    until(lambda: host.replica().gate == "open")
    host.turns()
    assert host.gate()
    assert "by hand" in (host.replica().detail or "")
    assert host.check() == "up drain\n", "the gateway is told what the agent knows"
    host.engine(port, "tiny")
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.gate()


# -- an engine that ends ---------------------------------------------------------------------


def test_a_run_that_ended_is_closed_also_where_its_unit_left_the_gate_open(host: Host) -> None:
    serving(host)
    host.unit(UNIT, run=1, active="failed", sub="failed")
    until(lambda: host.phase() == "failed")
    assert not host.gate()
    assert host.check() == "up drain\n"
    until(lambda: "failed" in host.reasons()[0])


def test_an_engine_that_came_back_by_itself_is_not_served_cold(host: Host) -> None:
    port = serving(host).port
    (host.gates / "tiny").unlink()  # as its unit does
    host.unit(UNIT, run=1, active="activating", sub="auto-restart")
    until(lambda: host.phase() == "failed")
    host.engine(port, "tiny")  # it cannot listen: the one from before does
    host.unit(UNIT, run=2)
    until(host.gate)
    log = host.log()
    assert log.count("-> warming: the engine runs") == 2
    assert log.count("warming -> ready") == 2


@pytest.mark.parametrize(
    "then",
    [
        unit_properties(2, "activating", "auto-restart"),
        unit_properties(1, "failed", "failed"),
        unit_properties(1, "deactivating", "stop-sigterm"),
    ],
)
def test_an_engine_that_ends_while_its_gate_opens_gets_it_closed_again(
    host: Host, then: dict[str, Any]
) -> None:
    """The unit closed its gate when it ended, before the agent opened it: nobody else would."""
    port = free_port()
    host.configure(replica(port=port))
    host.unit(UNIT, run=1)
    gate = str(host.gates / "tiny")
    host.systemd.order(once={"exists": gate, "then": {"units": {UNIT: then}}})
    host.engine(port, "tiny")
    host.start()
    until(lambda: "warming -> ready" in host.log())
    until(lambda: host.phase() in {"failed", "stopped"})
    assert not host.gate()
    host.turns()
    assert not host.gate()
    host.systemd.order(once=None, units={UNIT: unit_properties(3)})
    until(host.gate)
    until(lambda: host.get("/readyz")[0] == 200)


# -- the end of the agent, files -------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_end_of_the_agent_moves_no_gate(host: Host, number: int) -> None:
    serving(host)
    (host.gates / "foreign").touch()
    seconds = host.stop(number)
    assert seconds < PROMPT
    assert sorted(path.name for path in host.gates.iterdir()) == ["foreign", "tiny"]
    host.start()
    until(lambda: host.get("/readyz")[0] == 200)
    assert sorted(path.name for path in host.gates.iterdir()) == ["foreign", "tiny"]
    assert host.log().count("warm after") == 1, "it is as warm as it was"


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
    until(host.gate)
    until(lambda: host.get("/readyz")[0] == 200)


def test_a_lost_record_means_closed_and_held_until_ready(host: Host) -> None:
    serving(host)
    host.stop()
    (host.records / "tiny.json").write_text("{")
    host.start()
    until(lambda: not host.gate())
    until(lambda: host.phase() in {"drained", "failed"})
    host.turns()
    assert not host.gate()
    assert any("its state is lost" in reason for reason in host.reasons())
    assert (host.records / "tiny.bad").read_text() == "{"
    assert result(host.ask(READY)).state == "ready"
    assert host.gate()


def test_a_host_without_records_takes_an_open_gate_as_it_is(host: Host) -> None:
    """As after an upgrade from an agent that kept none: nothing is closed, nothing is warmed up."""
    port = free_port()
    host.configure(replica(port=port))
    host.unit(UNIT, run=1)
    host.engine(port, "tiny")
    (host.gates / "tiny").touch()
    host.start()
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.gate()
    assert "opened by an earlier agent" in host.log()
    assert "warm after" not in host.log()
