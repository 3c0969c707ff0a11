"""The verbs of rollouts as a person and a program use them, against a real socket."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from farrier_agent.control.protocol import Act, Audit, Drain, Lease, Ledger

from tests.agent.control.house import House, house


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "control.sock") as one:
        yield one


def run(line: str, agent: House, text: str = "") -> subprocess.CompletedProcess[str]:
    verb, *rest = line.split()
    command = [sys.executable, "-m", "farrier_agent.cli", verb, f"--socket={agent.path}", *rest]
    return subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, timeout=30
    )


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        (
            "lease take --rollout r-1 --holder a@b --seconds 5 --takeover --json",
            Lease(action="take", rollout="r-1", holder="a@b", seconds=5.0, takeover=True),
        ),
        ("lease renew --token 7", Lease(action="renew", token=7)),
        ("lease release --token 7 --json", Lease(action="release", token=7)),
        ("lease show", Lease(action="show")),
        ("act converge --token 7", Act(action="converge", token=7)),
        ("act done --token 7", Act(action="done", token=7)),
        ("act done", Act(action="done")),
        ("act restart --token 7 tiny", Act(action="restart", token=7, replicas=("tiny",))),
        ("act restart --all --token 7", Act(action="restart", token=7, all=True)),
        ("audit --lines 5", Audit(lines=5)),
        ("ledger get r-1", Ledger(action="get", id="r-1")),
        ("ledger list --json", Ledger(action="list")),
        (
            "drain --token 7 --holder a@b tiny",
            Drain(replicas=("tiny",), token=7, holder="a@b"),
        ),
    ],
)
def test_what_is_typed_is_what_is_asked(line: str, asked: object, agent: House) -> None:
    done = run(line, agent)
    assert done.returncode == 0, done.stderr
    assert agent.handlers.asked[-1] == asked


def test_a_ledger_follows_its_request(agent: House) -> None:
    content = json.dumps({"lines": "x" * 500_000})
    assert run("ledger put r-1 --token 7", agent, content).returncode == 0
    assert agent.handlers.contents == [content.encode()]
    assert run("ledger put r-1 --token 7", agent, "x" * (2**21 + 1)).returncode == 2
    assert len(agent.handlers.contents) == 1


@pytest.mark.parametrize(
    "line",
    [
        "lease",
        "lease take --rollout r-1",
        "lease take --rollout ../r --holder a",
        "lease take --rollout r-1 --holder a --seconds 0",
        "lease renew",
        "act restart --token 7",
        "act reboot",
        "act run --token 7",
        "ledger put r-1",
        "drain tiny --token 0",
    ],
)
def test_wrong_usage_asks_nobody(line: str, agent: House) -> None:
    assert run(line, agent).returncode == 2
    assert agent.handlers.asked == []


def test_for_people(agent: House) -> None:
    said = run("lease show", agent).stdout
    assert said == "rollout r-1 of alice@laptop, token 7, runs out in 1:00 min\n"
    said = run("act converge --token 7", agent).stdout
    assert "no rollout has a lease (the last token was 7); acting (converge)" in said
    assert run("audit", agent).stdout.endswith(" root: drain: done\n")
    assert run("ledger get r-1", agent).stdout == "{}\n"
