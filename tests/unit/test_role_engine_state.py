"""What a converge reads of replicas on a host, and what it says of those that serve nobody."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from farrier_agent.draining.record import Asker, Drain, Phase, Record, Source

from farrier.spec import Model
from roles.engine.state import ReplicaState, ReplicaStates, read_record
from roles.engine.waiting import wait_script

RUN = "0123456789abcdef0123456789abcdef"


def record(phase: Phase = Phase.READY, **fields: Any) -> Record:
    values: dict[str, Any] = {
        "replica": "tiny",
        "reason": 'a "reason" with \'; $(x) == and \\',
        "by": "somebody",
        "since_at": 1.0,
        "boot_id": "b",
        "invocation_id": RUN,
        "engine_runs": True,
    }
    return Record(phase=phase, **(values | fields))


def drain(source: Source = "person", by: str = "root", reason: str = "a fan") -> Drain:
    asker = Asker(by, source, reason)
    return Drain(
        askers=(asker,),
        policy="extend",
        begun_at=1,
        begun=1,
        settle_ends=1,
        deadline=9,
        closed=True,
    )


ROLLOUT = Asker("alice@laptop", "rollout", "held by rollout r-1: a new version", "r-1")
CLOSED = ReplicaState("active", RUN, "-", gate_open=False)


def test_one_that_serves_or_is_on_its_way_is_not_kept_closed() -> None:
    assert replace(CLOSED, gate_open=True, record=record(gate="open")).kept_closed() is None
    assert CLOSED.kept_closed() is None
    for phase in (Phase.STARTING, Phase.WARMING, Phase.FAILED, Phase.STOPPED):
        assert replace(CLOSED, record=record(phase)).kept_closed() is None
    # its gate is about to be opened
    assert replace(CLOSED, record=record(gate="opening")).kept_closed() is None


def test_a_gate_that_was_closed_by_hand() -> None:
    said = replace(CLOSED, record=record(gate="open")).kept_closed()
    assert said == (
        "is warm, but somebody closed its gate by hand. To open it: sudo farrier-agent ready tiny"
    )


@pytest.mark.parametrize("phase", [Phase.DRAINING, Phase.DRAINED])
def test_a_drain_with_who_wants_it(phase: Phase) -> None:
    said = replace(CLOSED, record=record(phase, drain=drain())).kept_closed()
    assert said == (
        f"is {phase.value}: a fan (asked by root). To take it back: sudo farrier-agent ready tiny"
    )


def test_what_the_agent_itself_closed_is_looked_at_first() -> None:
    wedged = drain("verdict", "farrier-agent (health)", "wedged three times within an hour")
    said = replace(CLOSED, record=record(Phase.DRAINED, drain=wedged)).kept_closed()
    assert said is not None
    assert said.startswith("is drained: wedged three times within an hour (asked by farrier-agent")
    assert "Look at: farrier-agent status. To take it back: sudo farrier-agent ready tiny" in said


@pytest.mark.parametrize("phase", [Phase.DRAINING, Phase.DRAINED])
@pytest.mark.parametrize("others", [False, True], ids=["alone", "a person as well"])
def test_what_a_rollout_drained_is_for_the_rollout_to_take_back(phase: Phase, others: bool) -> None:
    person = drain()
    askers = (*(person.askers if others else ()), ROLLOUT)
    held = msgspec.structs.replace(person, askers=askers)
    after = ". It stays drained after that: a fan (asked by root)" if others else ""
    assert replace(CLOSED, record=record(phase, drain=held)).kept_closed() == (
        f"is {phase.value}: held by rollout r-1: a new version (asked by alice@laptop). The rollout"
        f" takes it back; if nobody drives it any more: farrier rollout resume r-1{after}"
    )


def test_a_record_of_another_run_or_of_a_stop_says_nothing() -> None:
    drained = record(Phase.DRAINED, drain=drain())
    assert replace(CLOSED, record=drained, run="f" * 32).kept_closed() is None
    assert replace(CLOSED, record=drained, run="", active="inactive").kept_closed() is None
    stopping = msgspec.structs.replace(drained, stop_began=1.0, stop_cap=2.0)
    assert replace(CLOSED, record=stopping).kept_closed() is None


def test_a_record_that_is_not_understood_is_none() -> None:
    line = msgspec.json.encode(record()).decode()
    assert read_record(line) == record()
    for bad in (
        "",
        "{",
        "[]",
        "did not answer within 9 s",
        line.replace('"schema":1', '"schema":2'),
    ):
        assert read_record(bad) is None


# On the shell that asks, with the host's files in a directory


def here(text: str, root: Path) -> str:
    return text.replace("/run/farrier", f"{root}/run").replace("/var/lib/farrier", f"{root}/lib")


def shell(script: str, root: Path, systemctl: str) -> subprocess.CompletedProcess[str]:
    """Run *script* with a stand-in of systemctl and no journal."""
    programs = root / "bin"
    programs.mkdir(exist_ok=True)
    for name, body in (("systemctl", systemctl), ("journalctl", "exit 0")):
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    return subprocess.run(
        ["sh", "-c", here(script, root)],
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for directory in ("run/open", "run/started", "lib/replicas"):
        (tmp_path / directory).mkdir(parents=True)
    return tmp_path


def keep(root: Path, one: Record) -> None:
    """As the agent writes it."""
    data = msgspec.json.format(msgspec.json.encode(one), indent=1) + b"\n"
    (root / f"lib/replicas/{one.replica}.json").write_bytes(data)


def test_states_of_two_replicas(root: Path) -> None:
    show = "".join(
        f"echo Id=engine-{name}.service; echo ActiveState=active; echo InvocationID={RUN}; echo;"
        for name in ("tiny", "other")
    )
    keep(root, record(Phase.DRAINED, drain=drain(reason="two\nlines == and a \\n")))
    (root / "run/started/tiny").write_text("c0ffee\n")
    (root / "run/open/other").touch()
    done = shell(ReplicaStates().command(["tiny", "other"]), root, show)
    states = ReplicaStates().process(done.stdout.splitlines())
    assert states["tiny"].record == record(
        Phase.DRAINED, drain=drain(reason="two\nlines == and a \\n")
    )
    assert (states["tiny"].started, states["tiny"].gate_open) == ("c0ffee", False)
    assert states["other"] == ReplicaState("active", RUN, "-", gate_open=True)
    assert states["tiny"].is_older("beef")
    assert not states["tiny"].is_older("c0ffee")
    assert not states["other"].is_older("beef")


ACTIVE = f"""
case "$*" in
*InvocationID*) echo {RUN};;
*ActiveState*) echo active;;
*is-active*) exit 0;;
*) echo;;
esac"""
MODEL = Model("tiny", source="path:/m", start_timeout=1)


def wait(root: Path) -> subprocess.CompletedProcess[str]:
    return shell(f"set -eu\n{wait_script(MODEL)}", root, ACTIVE)


def test_a_wait_ends_when_the_gate_is_open(root: Path) -> None:
    (root / "run/open/tiny").touch()
    assert wait(root).returncode == 0


def test_a_wait_ends_with_the_reason_of_a_failed_warm_up(root: Path) -> None:
    failed = record(Phase.FAILED, last_drain=drain())
    keep(root, failed)
    done = wait(root)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert read_record(line.removeprefix("FARRIER: ")) == failed


@pytest.mark.parametrize("asker", [*drain().askers, ROLLOUT], ids=["a person", "a rollout"])
def test_a_wait_ends_for_one_that_somebody_drained(root: Path, asker: Asker) -> None:
    # a rollout's is warm, and closed until the rollout says ready
    keep(root, record(Phase.DRAINED, drain=msgspec.structs.replace(drain(), askers=(asker,))))
    assert wait(root).returncode == 0


@pytest.mark.parametrize(
    "kept",
    [
        None,
        record(Phase.WARMING),
        record(Phase.FAILED, invocation_id="f" * 32),
        # a phase of what it had before says nothing
        record(Phase.WARMING, last_drain=drain()),
        record(Phase.DRAINED, drain=drain(), stop_began=1.0, stop_cap=2.0),
    ],
    ids=["none", "warming", "of another run", "with a last drain", "being stopped"],
)
def test_any_other_is_waited_for(root: Path, kept: Record | None) -> None:
    if kept:
        keep(root, kept)
    done = wait(root)
    assert done.returncode == 1
    assert "FARRIER: did not answer within 1 s" in done.stderr
