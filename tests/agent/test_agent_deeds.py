"""What root does for a rollout: the real command line against the real agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from farrier_agent.control.protocol import Failed, Leased

from tests.agent.host import Host, until
from tests.agent.replicas import needs_another_user, serving
from tests.agent.rollouts import ID, Rollout, audit, kept

pytestmark = needs_another_user


def last(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def deed(host: Host, action: str, rollout: Rollout, *words: str) -> list[str]:
    return ["act", f"--socket={host.control_path}", action, f"--token={rollout.token}", *words]


@pytest.fixture
def rollout(host: Host) -> Rollout:
    serving(host)
    return Rollout(host)


def test_a_command_runs_under_the_mark_and_its_end_is_told(host: Host, rollout: Rollout) -> None:
    command = ("--json", "--", "sh", "-c", "echo one; echo two >&2; exit 3")
    done = host.command(*deed(host, "run", rollout, *command))
    assert done.returncode == 1
    assert [json.loads(line)["kind"] for line in done.stdout.splitlines()] == [
        *("entry", "entry", "ran")
    ]
    assert last(done)["status"] == 3
    assert last(done)["output"] == "one\ntwo\n"
    assert kept(host)["acting"]["deed"] == "run"
    assert [(line["verb"], line["outcome"]) for line in audit(host)[1:]] == [
        ("act run", "done"),
        ("act ran", "failed: status 3"),
    ]
    assert audit(host)[1]["reason"] == "sh -c 'echo one; echo two >&2; exit 3'"
    well = host.command(*deed(host, "run", rollout, "--", "true"))
    assert well.returncode == 0
    assert well.stdout.startswith("ended with status 0 after ")


def test_a_token_that_does_not_count_runs_nothing(host: Host, rollout: Rollout) -> None:
    rollout.lease("release")
    touched = host.root / "touched"
    done = host.command(*deed(host, "run", rollout, "--", "touch", str(touched)))
    assert done.returncode == 3
    assert "was released at" in done.stderr
    assert not touched.exists()


def test_one_deed_at_a_time_whoever_has_the_lease(host: Host, rollout: Rollout) -> None:
    go_on = host.root / "go-on"
    os.mkfifo(go_on)
    first = subprocess.Popen(
        [*_cli(), *deed(host, "run", rollout, "--", "cat", str(go_on))],
        env=host.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    until(lambda: kept(host)["acting"] is not None)
    awake = Rollout(host, holder="alice@desk")
    done = host.command(*deed(host, "run", awake, "--", "true"))
    assert done.returncode == 3
    assert "a rollout's deed is under way on this host (pid" in done.stderr
    assert "cat " in done.stderr
    for action in ("done", "converge"):
        final = awake.act(action)
        assert isinstance(final, Failed)
        assert "a rollout's command runs on this host (pid" in final.error
    # killed, its command goes on with the lock
    first.kill()
    first.wait()
    assert host.command(*deed(host, "run", awake, "--", "true")).returncode == 3
    go_on.write_text("x")
    until(lambda: isinstance(awake.act("done"), Leased))
    assert host.command(*deed(host, "run", awake, "--", "true")).returncode == 0


def test_a_command_outlives_the_connection_that_it_was_started_over(
    host: Host, rollout: Rollout
) -> None:
    go_on, done = host.root / "go-on", host.root / "done"
    os.mkfifo(go_on)
    script = f"echo begun; cat {go_on}; echo more; touch {done}; exit 4"
    process = subprocess.Popen(
        [*_cli(), *deed(host, "run", rollout, "--", "sh", "-c", script)],
        env=host.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.stdout.close()
    process.send_signal(signal.SIGHUP)
    go_on.write_text("x")
    until(done.exists)
    until(lambda: audit(host)[-1]["outcome"] == "failed: status 4")
    assert process.wait(timeout=20) == 1


def test_a_reboot_is_marked_first_and_wants_everything_drained(
    host: Host, rollout: Rollout
) -> None:
    asked = host.root / "asked"
    fake = host.root / "bin/systemctl"
    fake.write_text(f'#!/bin/sh\necho "$@" $(grep -c reboot {host.rollout}/lease.json) > {asked}\n')
    fake.chmod(0o755)
    done = host.command(*deed(host, "reboot", rollout))
    assert done.returncode == 3
    assert "not everything is drained: replica tiny is ready" in done.stderr
    assert not asked.exists()
    rollout.drain()
    done = host.command(*deed(host, "reboot", rollout, "--json"))
    assert done.returncode == 0, done.stderr
    assert (last(done)["kind"], last(done)["acting"]) == ("leased", "reboot")
    assert asked.read_text() == "reboot 1\n"


def test_a_ledger_is_kept_for_who_resumes(host: Host, rollout: Rollout) -> None:
    ledger = json.dumps({"hosts": ["gpu01"] * 60_000, "note": "ä"}, ensure_ascii=False)
    put = _ledger(host, "put", ID, f"--token={rollout.token}", "--json", text=ledger)
    assert put.returncode == 0, put.stderr
    assert last(put)["ledgers"][0]["size_bytes"] == len(ledger.encode())
    assert _ledger(host, "get", ID).stdout == ledger + "\n"
    assert json.loads(last(_ledger(host, "get", ID, "--json"))["ledgers"][0]["content"])
    assert _ledger(host, "list").stdout.startswith(f"{ID}  ")
    other = _ledger(host, "put", "r-2", f"--token={rollout.token}", text="{}")
    assert other.returncode == 3
    assert f"is of rollout {ID}, and the ledger is r-2" in other.stderr
    assert _ledger(host, "put", ID, f"--token={rollout.token}", text="{").returncode == 2
    long = _ledger(host, "put", ID, f"--token={rollout.token}", text='"' + "x" * 2**21 + '"')
    assert long.returncode == 2
    assert _ledger(host, "get", ID).stdout == ledger + "\n"
    rollout.lease("release")
    assert _ledger(host, "put", ID, f"--token={rollout.token}", text="{}").returncode == 3
    assert _ledger(host, "get", "r-9").returncode == 1


def test_the_audit_says_who_did_what(host: Host, rollout: Rollout) -> None:
    host.verb("drain", "tiny", "--wait", "--reason=bad fan", "--holder=bob@desk")
    host.verb("ready", "tiny", "--wait")
    host.verb("drain", "tiny", "--token=5")
    shown = host.verb("audit").stdout.splitlines()
    assert len(shown) == 5
    assert "alice@laptop (root): lease take, rollout " + ID in shown[0]
    assert shown[1].endswith("bob@desk (root): drain tiny, because: bad fan: begun")
    assert shown[2].endswith("because: bad fan: done: tiny drained")
    assert shown[3].endswith("root: ready tiny: done: tiny ready")
    assert "drain tiny (token 5): refused: token 5 is not the present lease's" in shown[4]
    newest = last(host.verb("audit", "--lines=1", "--json"))["lines"]
    assert [line["verb"] for line in newest] == ["drain"]


def _cli() -> list[str]:
    return [sys.executable, "-m", "farrier_agent.cli"]


def _ledger(host: Host, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    path = Path(host.control_path)
    return subprocess.run(
        [*_cli(), "ledger", f"--socket={path}", *arguments],
        env=host.environment(),
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
