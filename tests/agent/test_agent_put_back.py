"""Units are put back to those from before: the real command line against the real agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from farrier_agent.control.protocol import Failed, Leased

from tests.agent.host import Host, until
from tests.agent.replicas import needs_another_user, serving
from tests.agent.rollouts import Rollout, audit, kept

pytestmark = needs_another_user

OLD, NEW, BAD = "1" * 64, "a" * 64, "b" * 64
"""NEW is what the agent's configuration wants."""
UNIT = "engine-tiny.service"


def unit(digest: str, argument: str = "1", program: str = "/bin/sh") -> str:
    """The text of a unit as the role writes it, as far as anybody looks."""
    return (
        f"[Unit]\nX-FarrierConfigHash={digest}\n[Service]\n"
        f"ExecStart={program} --max-model-len {argument}\nEnvironment=SEED={argument}\n"
    )


class Units:
    """The units of the tests' host, those before them, and a ``systemctl`` that notes its words."""

    def __init__(self, host: Host, rollout: Rollout) -> None:
        self.host, self.rollout = host, rollout
        self.units, self.previous = host.root / "units", host.root / "previous"
        self.units.mkdir()
        self.previous.mkdir(mode=0o755)
        self.asked = host.root / "asked"
        fake = host.root / "bin/systemctl"
        fake.write_text(f'#!/bin/sh\necho "$@" >> {self.asked}\n')
        fake.chmod(0o755)
        self.now = self.units / UNIT
        self.before = self.previous / UNIT
        self.mark = self.previous / "engine-tiny.put-back"

    def words(self, *replicas: str) -> list[str]:
        places = {
            "units": self.units,
            "previous": self.previous,
            "started": self.host.started,
            "records": self.host.records,
        }
        return [
            *("act", f"--socket={self.host.control_path}", "back", f"--token={self.rollout.token}"),
            *(f"--{name}-dir={path}" for name, path in places.items()),
            *(replicas or ("tiny",)),
        ]

    def back(self, *replicas: str) -> subprocess.CompletedProcess[str]:
        return self.host.command(*self.words(*replicas))

    def started_with(self, digest: str) -> None:
        (self.host.started / "tiny").write_text(f"{digest}\n")

    def systemctl(self) -> list[str]:
        return self.asked.read_text().splitlines() if self.asked.exists() else []


@pytest.fixture
def units(host: Host) -> Units:
    host.started.mkdir(exist_ok=True)
    serving(host, units_dir=str(host.root / "units"), previous_dir=str(host.root / "previous"))
    found = Units(host, Rollout(host))
    found.now.write_text(unit(NEW))
    found.before.write_text(unit(OLD, "2"))
    return found


def test_the_unit_from_before_is_put_back_and_nothing_is_interrupted(units: Units) -> None:
    host = units.host
    units.started_with(NEW)
    done = units.back()
    assert done.returncode == 0, done.stderr
    assert "--max-model-len 1 → --max-model-len 2; environment: SEED" in done.stdout
    assert units.now.read_text() == unit(OLD, "2")
    # the one that is left was warm: one may go forward to it again
    assert units.before.read_text() == unit(NEW)
    assert units.now.stat().st_mode & 0o777 == 0o644
    assert units.systemctl() == ["daemon-reload", f"reset-failed {UNIT}"]
    assert host.phase() == "ready"
    assert kept(host)["acting"] is None
    assert [(one["verb"], one["outcome"]) for one in audit(host)[1:]] == [
        ("act back, asked", "done"),
        ("act put-back", "done"),
    ]
    assert audit(host)[-1]["reason"].startswith("tiny: --max-model-len 1")
    until(lambda: host.replica().put_back is True)
    assert host.replica().restart_pending is True
    units.started_with(OLD)
    until(lambda: host.replica().restart_pending is False)
    # another unit was written there: what was put back is over
    units.now.write_text(unit(NEW))
    until(lambda: host.replica().put_back is False)


def test_asked_twice_is_once(units: Units) -> None:
    units.started_with(NEW)
    assert units.back().returncode == 0
    again = units.back()
    assert again.returncode == 0
    assert "was put back already" in again.stdout
    assert units.now.read_text() == unit(OLD, "2")
    # also for another rollout, as long as it was not started
    units.rollout.lease("release")
    units.rollout = Rollout(units.host, "r-2")
    assert "was put back already" in units.back().stdout
    assert units.now.read_text() == unit(OLD, "2")
    # it was, and well: then another one goes forward again
    units.started_with(OLD)
    assert units.back().returncode == 0
    assert units.now.read_text() == unit(NEW)
    assert units.before.read_text() == unit(OLD, "2")


def test_what_never_was_warm_is_not_gone_back_to(units: Units) -> None:
    units.now.write_text(unit(BAD))
    units.started_with(NEW)  # of another run than the unit's
    assert units.back().returncode == 0
    assert units.now.read_text() == unit(OLD, "2")
    assert not units.before.exists()
    units.started_with(OLD)
    units.rollout.lease("release")
    units.rollout = Rollout(units.host, "r-2")
    done = units.back()
    assert done.returncode == 3
    assert "there is nothing to go back to" in done.stderr
    assert units.now.read_text() == unit(OLD, "2")
    assert audit(units.host)[-1]["outcome"] == "refused"


def _garbage(units: Units) -> None:
    units.before.write_bytes(b"\xff\x00 nothing of a unit")


def _cut_off(units: Units) -> None:
    units.before.write_text(unit(OLD)[:20])


def _link(units: Units) -> None:
    secret = units.host.root / "elsewhere"
    secret.write_text(unit(OLD))
    units.before.unlink()
    units.before.symlink_to(secret)


def _pipe(units: Units) -> None:
    units.before.unlink()
    os.mkfifo(units.before)


def _program_gone(units: Units) -> None:
    units.before.write_text(unit(OLD, program="/opt/farrier/vllm/0.1-gone/bin/python"))


def _nothing(units: Units) -> None:
    units.before.unlink()


def _the_same(units: Units) -> None:
    units.before.write_text(unit(NEW))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_garbage, "not the unit of an engine"),
        (_cut_off, "not the unit of an engine"),
        (_link, "Too many levels of symbolic links"),
        (_pipe, "not a plain file"),
        (_program_gone, "is gone: /opt/farrier/vllm/0.1-gone/bin/python"),
        (_nothing, "there is nothing to go back to"),
        (_the_same, "there is nothing to go back to"),
    ],
)
def test_what_cannot_be_put_back_is_refused_and_nothing_is_done(
    units: Units, spoil: Callable[[Units], None], why: str
) -> None:
    units.started_with(NEW)
    spoil(units)
    done = units.back()
    assert done.returncode == 3, done.stderr
    assert why in done.stderr
    assert "nothing was done" in done.stderr
    assert units.now.read_text() == unit(NEW)
    assert not units.mark.exists()
    assert units.systemctl() == []


def test_a_token_that_does_not_count_puts_nothing_back(units: Units) -> None:
    units.rollout.lease("release")
    done = units.back()
    assert done.returncode == 3
    assert "was released at" in done.stderr
    assert units.now.read_text() == unit(NEW)


def test_without_the_agent_nothing_is_put_back(units: Units) -> None:
    units.host.stop()
    done = units.back()
    assert done.returncode == 1
    assert "systemctl status farrier-agent" in done.stderr
    assert units.now.read_text() == unit(NEW)


def test_a_replica_that_is_not_there_is_refused(units: Units) -> None:
    done = units.back("tiny", "nobody")
    assert done.returncode != 0
    assert "nobody" in done.stderr
    assert units.now.read_text() == unit(NEW)


def test_not_while_a_command_runs(units: Units) -> None:
    host, go_on = units.host, units.host.root / "go-on"
    os.mkfifo(go_on)
    run = [
        *("act", f"--socket={host.control_path}", "run", f"--token={units.rollout.token}"),
        *("--", "cat", str(go_on)),
    ]
    first = subprocess.Popen(
        [sys.executable, "-m", "farrier_agent.cli", *run], env=host.environment()
    )
    until(lambda: kept(host)["acting"] is not None)
    done = units.back()
    assert done.returncode == 3
    assert "a rollout's deed is under way" in done.stderr
    assert units.now.read_text() == unit(NEW)
    go_on.write_text("x")
    assert first.wait(timeout=20) == 0


def test_killed_after_any_file_it_is_done_to_the_end_the_next_time(units: Units) -> None:
    """The mark alone says nothing, and a unit that stands there is not put back again."""
    units.started_with(NEW)
    mark = {"to": OLD, "left": NEW, "rollout": units.rollout.name, "at": 1.0}
    units.mark.write_text(json.dumps(mark))
    assert units.back().returncode == 0
    assert units.now.read_text() == unit(OLD, "2")
    assert units.before.read_text() == unit(NEW)
    # killed before the one that is left was kept
    units.before.write_text(unit(OLD, "2"))
    units.asked.unlink()
    assert units.back().returncode == 0
    assert units.now.read_text() == unit(OLD, "2")
    assert units.systemctl()[0] == "daemon-reload"


def test_the_agent_alone_puts_nothing_back(units: Units) -> None:
    """What it answers is leave to do it; who asks over its socket only gets that."""
    assert isinstance(units.rollout.act("back", "tiny"), Leased)
    assert units.now.read_text() == unit(NEW)
    assert isinstance(units.rollout.act("back", "nobody"), Failed)
