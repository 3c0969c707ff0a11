"""The host lets go of its GPUs and takes them up again: the real command line, the real agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from farrier_agent.config import Replica

from tests.agent.host import Host, until
from tests.agent.replicas import UNIT, needs_another_user, run_by_its_unit
from tests.agent.rollouts import ID, Rollout, audit, kept

pytestmark = needs_another_user

ROOT = Path(__file__).parents[2]
PERSISTENCED = "nvidia-persistenced.service"
FABRIC = "nvidia-fabricmanager.service"
SLEEP = ["sleep", "3600"]


class Gpus:
    """The tests' host, whose services are units that run, and its ways to let go."""

    def __init__(self, host: Host, replica: Replica) -> None:
        self.host, self.replica = host, replica
        self.rollout = Rollout(host)
        self.proc, self.dev, self.sys = (host.root / one for one in ("proc", "dev", "of-kernel"))
        for directory in (self.proc, self.dev, self.sys, host.rollout):
            directory.mkdir(exist_ok=True)
        self.note = host.rollout / "let-go.json"
        systemctl = host.root / "bin/systemctl"
        systemctl.write_text(
            f"#!/bin/sh\ncd {ROOT}\nexec {sys.executable} -m tests.fakes.systemd1.program"
            f' {host.systemd.bus} "$@"\n'
        )
        systemctl.chmod(0o755)

    def service(self, name: str) -> None:
        """A service of NVIDIA's that runs."""
        self.host.systemd.programs(name, exec=SLEEP)
        self.host.systemd.job("start", name)
        until(lambda: self.active(name) == "active")

    def active(self, name: str) -> str:
        found: str = self.host.systemd.now(name)["ActiveState"]
        return found

    def driver(self, *modules: str) -> None:
        """A driver is in the kernel, of *modules*, which a stand-in of modprobe takes out."""
        version = self.proc / "driver/nvidia/version"
        version.parent.mkdir(parents=True, exist_ok=True)
        version.write_text("NVRM version: NVIDIA UNIX Open Kernel Module  580.95.05\n")
        for one in modules:
            (self.sys / "module" / one).mkdir(parents=True)
        fake = self.host.root / "bin/modprobe"
        fake.write_text(
            f'#!/bin/sh\necho "$@" >> {self.host.root}/modprobe\n'
            f"[ ! -e {self.host.root}/busy ] ||"
            " { echo modprobe: FATAL: Module nvidia is in use. >&2; exit 1; }\n"
            f'case "$1" in -r) rm -r {self.sys}/module/nvidia* {version};; *) echo x > {version};;'
            " esac\n"
        )
        fake.chmod(0o755)

    def modprobe(self) -> list[str]:
        """What modprobe was asked for."""
        return (self.host.root / "modprobe").read_text().splitlines()

    def words(self, action: str, *words: str) -> list[str]:
        places = {"note": self.host.rollout, "proc": self.proc, "dev": self.dev, "sys": self.sys}
        return [
            *("act", f"--socket={self.host.control_path}", action),
            *(f"--token={self.rollout.token}", "--json"),
            *(f"--{name}-dir={path}" for name, path in places.items()),
            *(words or ("tiny",)),
        ]

    def let_go(self, *words: str, deed: str = "driver") -> dict[str, Any]:
        done = self.host.command(*self.words("let-go", f"--deed={deed}", *(words or ("tiny",))))
        return self.last(done)

    def take_up(self) -> dict[str, Any]:
        return self.last(self.host.command(*self.words("take-up")))

    def last(self, done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found | {"code": done.returncode}


@pytest.fixture
def gpus(host: Host) -> Gpus:
    found = run_by_its_unit(host, accelerator="cuda")
    return Gpus(host, found)


def test_everything_that_has_the_gpus_is_stopped_and_started_again(gpus: Gpus) -> None:
    host = gpus.host
    gpus.service(PERSISTENCED)
    gpus.service(FABRIC)
    gpus.rollout.drain()
    before = host.systemd.now(UNIT)["InvocationID"]
    done = gpus.let_go()
    assert done["code"] == 0, done
    assert done["stopped"] == [UNIT, PERSISTENCED, FABRIC]
    assert (done["unloaded"], done["why"]) == (False, "no driver is in this host's kernel")
    assert {gpus.active(one) for one in done["stopped"]} == {"inactive"}
    assert kept(host)["acting"]["deed"] == "driver"
    assert json.loads(gpus.note.read_text())["units"] == done["stopped"]
    assert json.loads(gpus.note.read_text())["rollout"] == ID
    until(lambda: (nvml := host.snapshot().nvml) and nvml.kind == "released")
    # asked twice is once, and forgets nothing
    assert gpus.let_go()["stopped"] == done["stopped"]
    taken = gpus.take_up()
    assert (taken["code"], taken["started"]) == (0, [PERSISTENCED, FABRIC, UNIT])
    until(lambda: host.phase() == "drained")
    assert host.systemd.now(UNIT)["InvocationID"] != before
    assert not host.gate()
    until(lambda: (gpus := host.snapshot().gpus) and gpus.driver_version)
    assert gpus.take_up()["started"] == []
    assert [(one["verb"], one["outcome"]) for one in audit(host)][-3:] == [
        ("act take-up", "done"),
        ("nvml acquire", "done"),
        ("act ended", "done"),
    ]
    assert any(
        one["verb"] == "act ended" and "let-go: stopped engine-tiny.service" in one["reason"]
        for one in audit(host)
    )
    # what started and did not stay is started again
    host.systemd.job("stop", FABRIC)
    until(lambda: gpus.active(FABRIC) == "inactive")
    assert gpus.let_go()["stopped"] == done["stopped"]
    assert set(gpus.take_up()["started"]) == set(done["stopped"])
    gpus.rollout.act("done")
    assert not gpus.note.exists()
    gpus.rollout.ready()
    assert host.gate()


def test_one_that_serves_is_not_stopped(gpus: Gpus) -> None:
    done = gpus.let_go()
    assert done["code"] == 3
    assert "the gate of tiny is open" in done["error"]
    assert gpus.active(UNIT) == "active"
    assert kept(gpus.host)["acting"] is None
    assert not gpus.note.exists()


def test_a_token_that_does_not_count_stops_and_starts_nothing(gpus: Gpus) -> None:
    gpus.rollout.drain()
    gpus.let_go()
    gpus.rollout.lease("release")
    for done in (gpus.let_go(), gpus.take_up()):
        assert done["code"] == 3
        assert "was released at" in done["error"]
    assert gpus.active(UNIT) == "inactive"


def test_modules_are_unloaded_where_nobody_has_a_gpu(gpus: Gpus) -> None:
    gpus.driver("nvidia_uvm", "nvidia", "ext4")
    gpus.rollout.drain()
    done = gpus.let_go()
    assert (done["unloaded"], done["why"]) == (True, "")
    assert gpus.modprobe() == ["-r nvidia_uvm nvidia"]
    # they are loaded again where whoever exchanges the driver did not
    assert gpus.take_up()["code"] == 0
    assert gpus.modprobe()[1:] == ["nvidia", "nvidia-uvm"]


def test_modules_that_stay_are_told_and_no_failure(gpus: Gpus) -> None:
    gpus.driver("nvidia")
    (gpus.host.root / "busy").touch()
    gpus.rollout.drain()
    done = gpus.let_go()
    assert (done["code"], done["unloaded"]) == (0, False)
    assert "Module nvidia is in use" in done["why"]


def test_who_has_a_gpu_open_is_named_and_keeps_the_modules(gpus: Gpus) -> None:
    gpus.driver("nvidia")
    node = gpus.dev / "nvidia0"
    node.touch()
    pid = str(os.getpid())
    (gpus.proc / pid / "fd").mkdir(parents=True)
    (gpus.proc / pid / "comm").write_text("python3\n")
    (gpus.proc / pid / "fd/3").symlink_to(node)
    gpus.rollout.drain()
    done = gpus.let_go()
    assert done["code"] == 0
    assert f"python3 (pid {pid}, root)" in done["holders"][0]
    assert "has an NVIDIA device open" in done["why"]
    assert not (gpus.host.root / "modprobe").exists()


def test_a_diagnosis_leaves_the_fabric_and_the_driver_alone(gpus: Gpus) -> None:
    gpus.service(PERSISTENCED)
    gpus.service(FABRIC)
    gpus.driver("nvidia")
    gpus.rollout.drain()
    done = gpus.let_go(deed="gpu-diag")
    assert (done["stopped"], done.get("unloaded")) == ([UNIT], None)
    assert kept(gpus.host)["acting"]["deed"] == "gpu-diag"
    done = gpus.let_go(deed="gpu-reset")
    assert done["stopped"] == [UNIT, PERSISTENCED]
    assert gpus.active(FABRIC) == "active"


def test_what_does_not_start_is_told_and_tried_again(gpus: Gpus) -> None:
    gpus.service(FABRIC)
    gpus.rollout.drain()
    gpus.let_go()
    gpus.host.systemd.programs(FABRIC, exec=SLEEP, start_pre=[["false"]])
    taken = gpus.take_up()
    assert taken["code"] == 1
    assert list(taken["failed"]) == [FABRIC]
    # the engine is up all the same
    assert gpus.active(UNIT) == "active"
    assert json.loads(gpus.note.read_text())["units"] == [UNIT, FABRIC]
    gpus.host.systemd.programs(FABRIC, exec=SLEEP)
    assert gpus.take_up()["started"] == [FABRIC]


def test_a_note_starts_nothing_that_was_not_stopped_to_let_go(gpus: Gpus) -> None:
    gpus.host.systemd.programs("evil.service", exec=SLEEP)
    gpus.rollout.drain()
    gpus.let_go()
    note = json.loads(gpus.note.read_text())
    gpus.note.write_text(json.dumps(note | {"units": ["evil.service", UNIT]}))
    assert gpus.take_up()["started"] == [UNIT]
    assert gpus.active("evil.service") == "inactive"


def test_what_was_noted_outlives_who_stopped_it(gpus: Gpus) -> None:
    """Killed in the middle, another rollout that takes over starts what the first one stopped."""
    host = gpus.host
    gpus.service(FABRIC)
    gpus.rollout.drain()
    gpus.let_go()
    gpus.rollout.falls_asleep()
    until(lambda: (shown := host.snapshot().rollout) and not shown.expires_in)
    gpus.rollout = Rollout(host, "r-2", takeover=True)
    assert gpus.let_go()["stopped"] == [UNIT, FABRIC]
    assert set(gpus.take_up()["started"]) == {UNIT, FABRIC}


@pytest.mark.parametrize("engine", [("--exit-at-start", "3"), ("--load-delay", "600")])
def test_an_engine_that_does_not_come_up_is_let_go_of(gpus: Gpus, engine: tuple[str, ...]) -> None:
    """Another driver's fault, perhaps: the way back must not need what it brought about."""
    host = gpus.host
    gpus.rollout.drain()
    gpus.let_go()
    host.engine_unit(gpus.replica, *engine)
    gpus.take_up()
    until(lambda: host.phase() in {"warming", "starting", "failed"})
    done = gpus.let_go()
    assert done["code"] == 0, done
    assert gpus.active(UNIT) in {"inactive", "failed"}
    host.engine_unit(gpus.replica)
    assert gpus.take_up()["code"] == 0
    until(lambda: host.phase() == "drained")
