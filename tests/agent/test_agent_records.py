"""The running agent and records that it cannot keep, or that others hold."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from farrier_agent.control.errors import ControlError
from farrier_agent.control.protocol import Done, Drain, Failed, Ready
from farrier_agent.draining.record import Phase
from farrier_agent.draining.store import Store

from tests.agent.host import PROMPT, Host, free_port, replica, until
from tests.agent.replicas import UNIT, result, serving, two_that_serve

DRAIN = Drain(replicas=("tiny",), wait=True)
READY = Ready(replicas=("tiny",), wait=True)


@contextmanager
def unwritable(host: Host) -> Iterator[None]:
    """As on a full disk the record can be read, and no new one be written beside it."""
    until(lambda: host.record().gate == "open")
    fresh = host.records / "tiny.new"
    fresh.mkdir()
    yield
    fresh.rmdir()


def test_without_records_no_gate_is_opened_and_it_is_said(host: Host) -> None:
    port = free_port()
    host.records.write_text("")
    host.configure(replica(port=port))
    host.unit(UNIT, run=1)
    host.engine(port, "tiny")
    host.start()
    until(lambda: any(str(host.records) in reason for reason in host.reasons()))
    host.turns(4)
    assert not host.gate()
    assert host.check() == "up drain\n"
    host.records.unlink()
    until(host.gate)
    until(lambda: host.get("/readyz")[0] == 200)


def test_a_drain_that_cannot_be_recorded_is_refused_and_nothing_was_done(host: Host) -> None:
    serving(host)
    with unwritable(host):
        asked = host.ask(DRAIN)
        assert isinstance(asked, Failed)
        assert asked.code == 1
        assert "nothing was done" in asked.error
        assert f"{host.records / 'tiny.json'}: cannot be written" in asked.error
        assert asked.next is not None
        host.turns()
        assert host.gate()
        assert host.check() == "up ready 100%\n"
        assert "cannot be written" in host.log()
    assert host.get("/readyz")[0] == 200
    assert result(host.ask(DRAIN)).state == "drained"


def test_a_run_that_ends_is_closed_also_where_that_cannot_be_recorded(host: Host) -> None:
    serving(host)
    with unwritable(host):
        host.unit(UNIT, run=1, active="failed", sub="failed")
        until(lambda: not host.gate())
    until(lambda: host.phase() == "failed")


def test_a_lock_that_somebody_holds_holds_up_its_replica_alone(host: Host) -> None:
    two_that_serve(host)
    with (host.records / "a.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = host.asking(Drain(replicas=("a",), wait=True))
        begun = time.monotonic()
        assert result(host.ask(Drain(replicas=("b",), wait=True))).state == "drained"
        assert host.get("/livez")[0] == 200
        assert host.check("a") == "up ready 100%\n"
        failed = waiting.last_word()
        assert isinstance(failed, Failed)
        assert "held by another process" in failed.error
        assert "fuser -v" in failed.error
        assert time.monotonic() - begun < 15
        assert host.gate("a")
        assert host.stop() < PROMPT
    host.start()
    assert result(host.ask(Drain(replicas=("a",), wait=True))).state == "drained"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record | {"schema": 99},
        lambda record: record | {"replica": "other"},
        lambda record: record | {"phase": "dancing"},
        lambda record: record | {"gate": 1},
        lambda _: [],
        lambda _: None,
        lambda record: record | {"reason": "x" * 300_000},
    ],
)
def test_a_record_that_means_nothing_closes_and_holds(host: Host, spoil: Any) -> None:
    serving(host)
    host.stop()
    path = host.records / "tiny.json"
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    host.start()
    until(lambda: not host.gate())
    until(lambda: any("state is lost" in reason for reason in host.reasons()))
    host.turns()
    assert not host.gate()
    assert host.check() == "up drain\n"
    assert result(host.ask(READY)).state == "ready"
    assert host.gate()


def test_a_record_that_is_lost_under_the_running_agent(host: Host) -> None:
    serving(host)
    with Store(host.records).locked("tiny"):  # else the agent may be about to write it
        (host.records / "tiny.json").write_text("{")
    until(lambda: not host.gate())
    until(lambda: any("state is lost" in reason for reason in host.reasons()))
    assert "Traceback" not in host.log()
    assert result(host.ask(READY)).state == "ready"


def test_a_record_of_another_boot_is_closed_until_it_is_warm(host: Host) -> None:
    """The gate's directory did not survive that; if it did, it would say nothing."""
    serving(host)
    host.stop()
    path = host.records / "tiny.json"
    other = json.loads(path.read_text()) | {"boot_id": "0" * 8}
    path.write_text(json.dumps(other))
    host.start()
    until(lambda: host.log().count("warm after") == 2)
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.record().phase is Phase.READY


def test_an_asker_is_never_left_without_a_word(host: Host) -> None:
    """The agent ends over ten requests that wait."""
    one = serving(host)
    host.configure(one, drain_seconds=600.0)
    waiting = [host.asking(DRAIN) for _ in range(10)]
    until(lambda: host.record().phase is not Phase.READY)
    host.stop()
    for asking in waiting:
        try:
            assert isinstance(asking.last_word(), Done)
        except ControlError as error:
            assert error.next is not None  # noqa: PT017 - both are words
