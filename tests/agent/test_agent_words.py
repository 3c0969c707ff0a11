"""What the running agent says in each phase of a replica: to gateways, to systemd, in its log."""

from __future__ import annotations

import time
from typing import Any

from farrier_agent.control.protocol import Done, Drain, Failed, Journal, Ready
from farrier_agent.draining.record import Phase

from tests.agent.host import FAKES, PROMPT, Host, free_port, replica, until
from tests.agent.manager import Manager
from tests.agent.replicas import UNIT, counts, needs_another_user, result, serving
from tests.agent.standin import Client

READY = "up ready 100%\n"
DRAIN = "up drain\n"


def test_a_gateway_is_answered_at_once_in_each_phase(host: Host) -> None:
    port = free_port()
    host.configure(replica(port=port), settle_seconds=1.5, warm_up_seconds=60.0)
    heard: dict[str, str] = {}

    def hear(phase: str) -> None:
        until(lambda: host.phase() == phase)
        begun = time.monotonic()
        heard[phase] = host.check()
        assert time.monotonic() - begun < PROMPT

    host.unit(UNIT, run=1, active="inactive", sub="dead")
    host.start()
    hear("stopped")
    host.unit(UNIT, run=2, active="activating", sub="start-pre")
    hear("starting")
    host.unit(UNIT, run=2)
    hear("warming")
    engine = host.engine(port, "tiny")
    hear("ready")
    host.ask(Drain(replicas=("tiny",)))
    hear("draining")
    assert host.gate(), "it settles"
    hear("drained")
    engine.kill()
    host.unit(UNIT, run=2, active="failed", sub="failed")
    hear("failed")
    assert heard.pop("ready") == READY
    assert set(heard.values()) == {DRAIN}
    assert len(heard) == 6
    assert host.check("other") == DRAIN
    until(lambda: getattr(host.snapshot().agent_check, "answered", 0) == 8)


@needs_another_user
def test_systemctl_status_shows_a_drain_and_how_many_it_waits_for(host: Host) -> None:
    with Manager(host.root / "notify") as manager:
        one = replica()
        host.configure(one)
        host.unit(one.unit, run=1)
        host.engine(one.port, "tiny")
        host.start(NOTIFY_SOCKET=manager.path, PYTHONPATH=str(FAKES / "systemd_module"))
        manager.until("STATUS=ready")
        host.nginx.hold(one.port, 2)
        host.ask(Drain(replicas=("tiny",), reason="a new driver"))
        manager.until("STATUS=tiny: draining, 2 in flight")
        host.nginx.let_go()
        manager.until("STATUS=tiny: drained")
        host.stop()


@needs_another_user
def test_every_step_is_logged_with_its_reason_and_who_asked(host: Host) -> None:
    one = serving(host)
    host.nginx.hold(one.port, 1)
    waiting = host.asking(Drain(replicas=("tiny",), wait=True, reason="a new driver"))
    until(lambda: counts(host, 1))
    host.nginx.let_go()
    waiting.last_word()
    result(host.ask(Ready(replicas=("tiny",), wait=True, reason="the driver is in")))
    log = host.log()
    steps = [
        "stopped -> warming: the engine runs (asked by systemd)",
        "warming -> ready: warm-up went through (asked by farrier-agent)",
        "ready -> draining (closed): a new driver (asked by root)",
        "draining (closed) -> drained: nothing in flight any more",
        "drained -> warming: the driver is in (asked by root)",
        "warming -> ready: warm-up went through (asked by farrier-agent)",
    ]
    at = 0
    for step in steps:
        at = log.index(f"replica tiny: {step}", at)


def test_the_journal_is_told_or_why_it_cannot_be(host: Host) -> None:
    serving(host)
    final = host.ask(Journal(replica="tiny", lines=5))
    if isinstance(final, Failed):  # a machine without systemd's journal, or its module
        assert final.next is not None
        assert "journal" in final.error
    else:
        assert final == Done()
    unknown: Any = host.ask(Journal(replica="large"))
    assert isinstance(unknown, Failed)
    assert unknown.code == 2
    assert host.get("/readyz")[0] == 200


@needs_another_user
def test_a_drain_in_figures(host: Host) -> None:
    one = serving(host)
    assert host.value("farrier_replica_phase", replica="tiny", phase="ready") == 1
    assert host.value("farrier_replica_held", replica="tiny") == 0
    host.nginx.hold(one.port, 3)
    waiting = host.asking(Drain(replicas=("tiny",), wait=True, deadline=3.0, on_deadline="force"))
    until(lambda: counts(host, 3))
    until(lambda: host.value("farrier_replica_in_flight", replica="tiny") == 3)
    assert host.value("farrier_replica_phase", replica="tiny", phase="draining") == 1
    assert host.value("farrier_replica_held", replica="tiny") == 1
    deadline = host.value("farrier_replica_drain_deadline_timestamp_seconds", replica="tiny")
    assert deadline is not None
    assert 0 < deadline - time.time() < 3.1
    assert result(waiting.last_word()).cut == 3
    until(lambda: host.value("farrier_replica_requests_cut_last_drain", replica="tiny") == 3)
    assert host.value("farrier_replica_drain_seconds", replica="tiny") is None
    seconds = host.value("farrier_replica_last_drain_seconds", replica="tiny")
    assert seconds is not None
    assert 2.9 < seconds < 5
    assert host.record().phase is Phase.DRAINED
    assert Client(one.port).listens()
