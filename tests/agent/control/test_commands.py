"""The verbs as a person and a program use them: the real command line against a real socket."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from farrier_agent.control.commands import add_commands

from tests.agent.control.house import House, house
from tests.agent.host import until

PROGRAM = """
import argparse, sys
from farrier_agent.control.commands import add_commands
parser = argparse.ArgumentParser(prog="farrier-agent", allow_abbrev=False)
add_commands(parser.add_subparsers(required=True))
arguments = parser.parse_args()
sys.exit(arguments.verb(arguments))
"""


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
    return [sys.executable, "-c", PROGRAM, *arguments]


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


def test_status_as_text_and_as_the_document_of_the_endpoint(agent: House) -> None:
    assert run(["status"], agent).stdout.startswith("gpu01: not ready")
    assert json.loads(run(["status", "--json"], agent).stdout)["host"] == "gpu01"


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
    done = run(["status"], agent)
    assert done.returncode == 1
    assert f"the agent does not answer on {agent.path}" in done.stderr
    assert "next: systemctl status farrier-agent" in done.stderr


def test_an_interrupted_wait_leaves_the_drain(agent: House) -> None:
    waiting = subprocess.Popen(
        [*command(["drain", "tiny", "--wait"]), f"--socket={agent.path}"],
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: agent.handlers.waiting == 1)
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


def test_every_verb_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    help_ = capsys.readouterr().out
    for verb in ("status", "drain", "ready", "restart", "evidence", "journal"):
        assert f"\n    {verb}" in help_
