"""The program of ExecStartPre=: cold engines are not served, and GPUs not shared by accident."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from farrier_agent.draining.events import DrainAsked
from farrier_agent.draining.holders import Held
from farrier_agent.draining.leftovers import describe, left_over, unit_of
from farrier_agent.draining.record import Phase
from farrier_agent.draining.start_check import GIB, taken

from tests.agent.draining.scene import USER, Program, Scene
from tests.agent.draining.stories import ANNA
from tests.agent.host import until

NEXT_RUN = "f" * 32
UNIT = "engine-tiny.service"


@dataclass
class Host:
    """A scene with a fake NVML, and a /proc and a control group of the test's own."""

    scene: Scene
    library: Path

    def __post_init__(self) -> None:
        self.state = self.scene.root / "nvml"
        self.cgroup = self.scene.root / "cgroup"
        self.proc = self.scene.root / "proc"
        self.gpus("")
        self.group(UNIT)
        self.process("self", unit=UNIT)
        (self.proc / "sys/kernel/random").mkdir(parents=True)
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text()
        (self.proc / "sys/kernel/random/boot_id").write_text(boot_id)

    def gpus(self, *lines: str) -> None:
        fresh = self.state.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in ("count 2", *lines)))
        fresh.replace(self.state)

    def group(self, unit: str, *pids: int, below: str = "") -> None:
        directory = self.cgroup / "system.slice" / unit / below
        directory.mkdir(parents=True, exist_ok=True)
        fresh = directory / "fresh"
        fresh.write_text("".join(f"{pid}\n" for pid in pids))
        fresh.replace(directory / "cgroup.procs")

    def process(self, pid: int | str, name: str = "python3", unit: str = "") -> None:
        directory = self.proc / str(pid)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "comm").write_text(f"{name}\n")
        (directory / "cgroup").write_text(f"0::/system.slice/{unit}\n")

    def check(
        self, *more: str, gpus: str = "0", patience: float = 0, environment: Mapping[str, str] = {}
    ) -> Program:
        scene = self.scene
        return scene.program(
            "farrier_agent.draining.start_check",
            "tiny",
            f"--unit={UNIT}",
            f"--gpus={gpus}",
            f"--patience={patience}",
            f"--gate-dir={scene.gate_dir}",
            f"--state-dir={scene.state_dir}",
            f"--nvml-library={self.library}",
            f"--proc={self.proc}",
            f"--cgroup={self.cgroup}",
            *more,
            environment={
                "INVOCATION_ID": NEXT_RUN,
                "FAKE_NVML_STATE": str(self.state),
                **environment,
            },
        )

    def refuses(self, *more: str, gpus: str = "0", patience: float = 0) -> str:
        program = self.check(*more, gpus=gpus, patience=patience)
        assert program.ends() == 1, program.said()
        return program.said().splitlines()[-1]


@pytest.fixture
def host(tmp_path: Path, nvml_library: Path) -> Iterator[Host]:
    with Scene(tmp_path) as scene:
        yield Host(scene, nvml_library)


def test_it_closes_the_gate_and_records_the_run(host: Host) -> None:
    host.scene.serves()
    assert host.check().ends() == 0
    assert not host.scene.gate_open
    record = host.scene.record()
    assert (record.phase, record.invocation_id) == (Phase.STARTING, NEXT_RUN)


def test_a_crash_that_no_agent_saw_does_not_end_a_drain(host: Host) -> None:
    host.scene.serves()
    host.scene.keeper.tell("tiny", DrainAsked(ANNA, settle=0))
    assert host.check().ends() == 0
    assert host.scene.record().held


def test_the_gate_closes_also_when_it_refuses(host: Host) -> None:
    host.scene.serves()
    host.gpus("0.processes 4711:1000")
    host.refuses()
    assert not host.scene.gate_open


def test_a_gate_that_cannot_be_closed_is_a_refusal(host: Host) -> None:
    (host.scene.gate_dir / "tiny").mkdir()
    assert "cannot be closed, and a cold engine would be served" in host.refuses()


def test_a_record_that_cannot_be_written_is_none(host: Host) -> None:
    host.scene.state_dir.write_text("not a directory")
    program = host.check()
    assert program.ends() == 0
    assert "its start is not recorded" in program.said()


def test_a_foreign_process_on_the_gpu_is_named(host: Host) -> None:
    host.process(4711, "blender", "render.service")
    host.gpus("1.processes 4711:2147483648", "1.memory.used 2147483648")
    assert host.check(gpus="0").ends() == 0, "the other GPU is of no concern"
    said = host.refuses(gpus="0,1")
    assert f"replica tiny does not start: GPU 1 is used by blender (pid 4711, {USER}" in said
    assert "with 2.0 GiB; next: end it" in said


def test_one_of_another_pid_namespace_too(host: Host) -> None:
    host.gpus("0.processes 99999")
    assert "process 99999, which is not seen from here" in host.refuses()


@pytest.mark.parametrize("kind", ["processes.graphics", "processes.mps"])
def test_whatever_it_uses_the_gpu_for(host: Host, kind: str) -> None:
    host.gpus(f"0.{kind} 4711:1000")
    assert "4711" in host.refuses()


def test_memory_that_nobody_holds(host: Host) -> None:
    host.gpus("0.memory.used 3221225472")
    assert "GPU 0 has 3.0 GiB in use and no process that NVML knows" in host.refuses()
    assert host.check("--idle-mib=4096").ends() == 0


def test_a_unit_that_may_share(host: Host) -> None:
    host.process(4711, "python3", "engine-small.service")
    host.gpus("0.processes 4711:1000", "0.memory.used 9000000000")
    assert host.check("--may-share", "engine-small.service").ends() == 0
    host.refuses("--may-share", "engine-other.service")


def test_it_waits_for_memory_that_is_being_freed(host: Host) -> None:
    host.gpus("0.memory.used 9000000000")
    program = host.check(patience=20)
    program.until_it_says("waiting: GPU 0 has 8.4 GiB in use")
    host.gpus("0.memory.used 4194304")
    assert program.ends() == 0


def test_what_is_left_of_the_last_run_is_named(host: Host) -> None:
    host.process(815, "VLLM::Worker_TP0", UNIT)
    host.group(UNIT, 815)
    said = host.refuses(gpus="")
    assert f"left over from its last run: VLLM::Worker_TP0 (pid 815, {USER}, engine-tiny" in said
    assert "systemctl kill --signal=SIGKILL engine-tiny.service" in said


def test_it_waits_for_what_is_being_killed(host: Host) -> None:
    host.group(UNIT, 815, below="workers")
    program = host.check(patience=20)
    program.until_it_says("waiting: left over")
    host.group(UNIT, below="workers")
    assert program.ends() == 0


def test_a_driver_that_is_not_there_or_hangs(host: Host) -> None:
    host.gpus("err.nvmlInit 9")
    assert "NVML cannot be used: Driver Not Loaded" in host.refuses()
    host.gpus("0.lost 1")
    assert "GPU 0: GPU is lost" in host.refuses()
    host.gpus("hang.nvmlDeviceGetComputeRunningProcesses 60000")
    begun = time.monotonic()
    assert "NVML does not answer within 10 s: the driver hangs" in host.refuses()
    assert time.monotonic() - begun < 15
    assert "Invalid" in host.refuses(gpus="7")


def test_a_host_without_a_gpu_loads_no_nvml(host: Host) -> None:
    host.gpus("err.nvmlInit 9")
    assert host.check(gpus="").ends() == 0


def test_what_free_means() -> None:
    def why(used: int | None, **processes: int | None) -> str | None:
        held = Held(0, used, {int(pid[1:]): size for pid, size in processes.items()})
        return taken(held, idle_bytes=GIB, shares=lambda pid: pid == 7, describe=str)

    assert why(GIB) is None
    assert why(GIB + 1) is not None
    assert why(None) is None
    assert why(40 * GIB, p7=40 * GIB) is None
    assert why(0, p8=None) == (
        "GPU 0 is used by 8 with an unknown amount of memory; next: end it, or give the replica"
        " another GPU"
    )
    many = why(0, **{f"p{pid}": 1 for pid in range(10, 20)})
    assert many is not None
    assert "and 5 more" in many


def test_of_whom_it_is_the_control_group(tmp_path: Path) -> None:
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    group = proc / "self" / "cgroup"
    for text, root in (
        (f"0::/system.slice/{UNIT}\n", cgroup),
        (f"0::/system.slice/{UNIT}/.control\n", cgroup),
        (f"4:memory:/x\n1:name=systemd:/system.slice/{UNIT}\n0::/\n", cgroup / "systemd"),
    ):
        group.write_text(text)
        directory = root / "system.slice" / UNIT
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cgroup.procs").write_text(f"0\n12\n{os.getpid()}\n")
        assert left_over(UNIT, proc=proc, cgroup=cgroup) == [12]
        (directory / "cgroup.procs").unlink()
        directory.rmdir()
    group.write_text("0::/user.slice/session-3.scope\n")
    assert left_over(UNIT, proc=proc, cgroup=cgroup) is None


def test_who_a_real_process_is() -> None:
    with subprocess.Popen(["sleep", "60"]) as one:
        until(lambda: describe(one.pid).startswith(f"sleep (pid {one.pid}, {USER}"))
        one.kill()
    assert unit_of(2**22 + 1) is None
    assert "not seen from here" in describe(2**22 + 1)
