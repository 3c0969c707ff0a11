"""The verbs as a person and a program use them: the real command line against a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from farrier_agent.control import protocol, text
from farrier_agent.control.client import ask
from farrier_agent.control.errors import RefusedError
from farrier_agent.control.protocol import Final

from tests.agent.control.house import House, Recorder, house
from tests.agent.host import until


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "control.sock") as one:
        yield one


def run(arguments: list[str], agent: House) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command(arguments), f"--socket={agent.path}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "farrier_agent.cli", *arguments]


def test_a_drain_says_how_it_goes_and_how_it_ended(agent: House) -> None:
    done = run(["drain", "tiny", "small"], agent)
    assert done.stderr == "tiny: draining, 2 in flight\nsmall: draining, 2 in flight\n"
    assert done.stdout == "tiny: drained, after 1.5 s\nsmall: drained, after 1.5 s\n"
    assert done.returncode == 0


def test_for_a_program_every_reply_is_a_line_and_nothing_else_is(agent: House) -> None:
    done = run(["drain", "tiny", "--json"], agent)
    kinds = [json.loads(line)["kind"] for line in done.stdout.splitlines()]
    assert kinds == ["progress", "done"]
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_refusal_is_exit_code_3_with_the_next_command(agent: House) -> None:
    done = run(["ready", "tiny"], agent)
    assert done.returncode == 3
    assert done.stdout == ""
    assert "systemd stops engine-tiny.service; next: systemctl status" in done.stderr
    as_json = run(["ready", "tiny", "--json"], agent)
    assert as_json.returncode == 3
    assert json.loads(as_json.stdout)["code"] == 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["drain"], "name replicas, or say all"),
        (["drain", "tiny", "--all"], "one of the two"),
        (["drain", "../../etc"], "$.replicas[0]"),
        (["drain", "tiny", "--deadline=-3"], "$.deadline"),
        (["drain", "tiny", "--deadline=nan"], "$.deadline"),
        (["drain", "tiny", "--on-deadline=kill"], "invalid choice"),
        (["journal", "--lines=-1"], "$.lines"),
        (["drain", "tiny", "--reason=a\nb"], "$.reason"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_asks_nobody(
    arguments: list[str], complaint: str, agent: House
) -> None:
    done = run(arguments, agent)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert agent.handlers.askers == []


def test_without_an_agent_it_says_where_and_what_to_do(agent: House) -> None:
    agent.close()
    done = run(["drain", "tiny"], agent)
    assert done.returncode == 1
    assert f"the agent does not answer on {agent.path}" in done.stderr
    assert "next: systemctl status farrier-agent" in done.stderr


def test_an_interrupted_wait_leaves_the_drain(agent: House) -> None:
    # A shell's background, in which these tests may run, ignores SIGINT and hands that down.
    heeding = ["env", "--default-signal=INT"]
    waiting = subprocess.Popen(
        [*heeding, *command(["drain", "tiny", "--wait"]), f"--socket={agent.path}"],
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: agent.handlers.waiting == 1)
    waiting.send_signal(signal.SIGINT)
    try:
        _, said = waiting.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        # one that meets Python in a destructor is lost; who waits presses the keys again
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=10)
    agent.drained()
    assert waiting.returncode == 1
    assert "what was begun goes on" in said
    assert "Traceback" not in said


def test_a_reader_that_has_read_enough_is_no_error(agent: House) -> None:
    shell = '"$0" "$@" | head -n 2; echo "${PIPESTATUS[0]}"'
    arguments = [*command(["journal", "--follow"]), f"--socket={agent.path}"]
    done = subprocess.run(
        ["bash", "-c", shell, *arguments], capture_output=True, text=True, check=True, timeout=30
    )
    first, second, code = done.stdout.splitlines()
    assert "line 0" in first
    assert "line 1" in second
    assert code == "1"
    assert done.stderr == ""


def test_evidence_says_where_it_is_and_what_it_lacks(agent: House) -> None:
    assert run(["evidence", "tiny"], agent).stdout == "/x (7 bytes)\n  missing: stacks: no py-spy\n"


def test_every_verb_says_what_it_does_and_status_is_the_endpoints() -> None:
    done = subprocess.run(command(["--help"]), capture_output=True, text=True, check=True)
    for verb in ("run", "status", "drain", "ready", "restart", "evidence", "ack", "nvml"):
        assert re.search(rf"^    {verb} +\w", done.stdout, re.MULTILINE), verb
    done = subprocess.run(command(["status", "--help"]), capture_output=True, text=True, check=True)
    assert "--config" in done.stdout
    assert "--socket" not in done.stdout


def test_the_socket_is_the_agents_unless_another_is_named() -> None:
    done = subprocess.run(command(["drain", "--help"]), capture_output=True, text=True, check=True)
    assert "[/run/farrier/agent/control.sock]" in done.stdout


def test_who_may_not_use_the_socket_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(RefusedError, match="for root and for the members") as caught:
            ask(protocol.Drain(replicas=("tiny",)), path=closed / "control.sock")
    finally:
        os.seteuid(user)
    assert (caught.value.code, caught.value.next) == (3, "the same with sudo")


def test_an_acknowledged_fault_is_named(agent: House) -> None:
    done = run(["ack", "gpu-lost", "GPU-1", "--reason=board changed"], agent)
    assert done.stdout == "acknowledged: gpu-lost of GPU-1\n"
    assert agent.handlers.asked[-1] == protocol.Ack(
        rule="gpu-lost", gpu="GPU-1", reason="board changed"
    )
    run(["ack"], agent)
    assert agent.handlers.asked[-1] == protocol.Ack()


def test_the_driver_is_let_go_of_for_a_time(agent: House) -> None:
    assert run(["nvml", "release", "--for=60"], agent).stdout == "released\n"
    assert agent.handlers.asked[-1] == protocol.Nvml(action="release", seconds=60)
    assert run(["nvml", "acquire"], agent).stdout == "acquired\n"
    assert run(["nvml", "release", "--for=-1"], agent).returncode == 2


def test_evidence_of_an_agent_that_went_away_has_to_be_asked_for_again(tmp_path: Path) -> None:
    class Ending(Recorder):
        async def evidence(self, *_: object) -> Final:
            one.close(wait=False)
            await asyncio.Event().wait()
            raise AssertionError

    with house(tmp_path / "control.sock", Ending) as one:
        done = run(["evidence", "tiny"], one)
    assert done.returncode == 1
    assert "went away before its last word" in done.stderr
    assert done.stderr.endswith("next: farrier-agent evidence tiny\n")


def test_an_ack_is_asked_for_again_as_it_was(tmp_path: Path) -> None:
    class Ending(Recorder):
        async def ack(self, *_: object) -> Final:
            one.close(wait=False)
            await asyncio.Event().wait()
            raise AssertionError

    with house(tmp_path / "control.sock", Ending) as one:
        done = run(["ack", "xid-reboot", "3"], one)
    assert done.returncode == 1
    assert done.stderr.endswith("next: farrier-agent ack xid-reboot 3\n")


def test_a_line_has_no_end(agent: House) -> None:
    assert run(["ack", "--reason=one\n"], agent).returncode == 2


def test_an_entry_names_its_replica_once() -> None:
    entry = protocol.Entry(
        at=1.0, message="replica tiny: ready -> draining", replica="tiny", cause="draining"
    )
    assert text.news(entry).endswith(" tiny: ready -> draining [draining]")
    other = protocol.Entry(at=1.0, message="host is ready")
    assert text.news(other).endswith(":01 host is ready")
