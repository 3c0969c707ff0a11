"""Whose processes hold the GPUs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from farrier_agent.collectors.process import ProcessCollector, ProcessError, attribute
from farrier_agent.config import Replica
from farrier_agent.gpus import Gpu, GpuProcess, Gpus, UnitOnGpu
from farrier_agent.procfs import Process, look, unit_in, unit_of
from hypothesis import given
from hypothesis import strategies as st

from tests.agent.host import until

ENGINE = "engine-tiny.service"
REPLICAS = (
    Replica(
        name="tiny",
        model="m",
        engine="vllm",
        unit=ENGINE,
        port=8100,
        gpus=[0, 1],
        config_hash="x",
    ),
)


@pytest.mark.parametrize(
    ("group", "unit"),
    [
        ("/system.slice/vllm@a.service", "vllm@a.service"),
        ("/system.slice/system-vllm.slice/vllm@a.service/worker", "vllm@a.service"),
        ("/system.slice/engine-tiny.service", "engine-tiny.service"),
        ("/system.slice/docker-0123456789abcdef.scope", "docker-0123456789abcdef.scope"),
        ("/machine.slice/libpod-0123.scope/container", "libpod-0123.scope"),
        ("/system.slice/gone.service (deleted)", "gone.service"),
        ("/user.slice/user-1000.slice/session-3.scope", "user@1000"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/jupyter.service", "user@1000"),
        ("/init.scope", "init.scope"),
        ("/docker/0123456789abcdef", None),
        ("/system.slice", None),
        ("/", None),
        ("", None),
    ],
)
def test_the_unit_in_a_control_group(group: str, unit: str | None) -> None:
    assert unit_in(group) == unit


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("0::/system.slice/a.service\n", "a.service"),
        ("12:memory:/x\n1:name=systemd:/system.slice/a.service\n", "a.service"),
        (
            "12:cpu,cpuacct:/system.slice/b.service\n1:name=systemd:/system.slice/a.service\n",
            "a.service",
        ),
        ("1:name=systemd:/system.slice/a.service\n0::/\n", "a.service"),
        ("0::/a:b.service\n", "a:b.service"),
        ("0::/\n", None),
        ("garbage", None),
        ("", None),
    ],
)
def test_both_versions_of_control_groups(tmp_path: Path, text: str, unit: str | None) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text(text)
    assert unit_of(7, proc=tmp_path) == unit


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=100))
def test_whatever_procfs_says(
    tmp_path_factory: pytest.TempPathFactory, cgroup: bytes, stat: bytes, comm: bytes
) -> None:
    proc = tmp_path_factory.mktemp("proc")
    (proc / "7").mkdir()
    for name, data in (("cgroup", cgroup), ("stat", stat), ("comm", comm)):
        (proc / "7" / name).write_bytes(data)
    found = look(7, proc=proc)
    assert found is None or (found.command.isprintable() and len(found.command) <= 64)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    # a name with everything that breaks a naive reader of /proc/PID/stat
    with subprocess.Popen(
        ["python3", "-c", "open('/proc/self/comm','w').write('a) R 1 (\\x1b');input()"],
        stdin=subprocess.PIPE,
    ) as one:
        yield one
        one.kill()


def test_a_real_process(sleeper: subprocess.Popen[bytes]) -> None:
    found = until(lambda: (one := look(sleeper.pid)) and one.command.startswith("a)") and one)
    assert found
    assert found.pid == sleeper.pid
    assert found.command == "a) R 1 ("
    mine = look(os.getpid())
    assert mine is not None
    assert 0 < mine.started <= found.started
    sleeper.kill()
    sleeper.wait()
    assert look(sleeper.pid) is None


def test_a_number_that_another_process_took_meanwhile(tmp_path: Path) -> None:
    """The name is read from a FIFO, so that the test knows when the reader is there."""
    stat = "7 (x) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 {} 1 1"
    directory = tmp_path / "7"
    directory.mkdir()
    (directory / "stat").write_text(stat.format(100))
    (directory / "cgroup").write_text("0::/system.slice/a.service\n")
    os.mkfifo(directory / "comm")

    def reuse(started: int) -> None:
        with (directory / "comm").open("w") as file:  # waits for the reader
            (directory / "stat").write_text(stat.format(started))
            file.write("name")

    for started, wanted in ((100, Process(7, 100, "a.service", "name")), (101, None)):
        thread = threading.Thread(target=reuse, args=(started,))
        thread.start()
        assert look(7, proc=tmp_path) == wanted
        thread.join()


UNITS = {
    11: ENGINE,
    12: ENGINE,
    13: "jupyter.service",
    14: "nvidia-persistenced.service",
    15: None,
    16: "user@1000",
}


def here(pid: int) -> Process | None:
    return Process(pid, 1, UNITS[pid], f"c{pid}") if pid in UNITS else None


def on(index: int, *processes: GpuProcess) -> Gpu:
    return Gpu(uuid=f"GPU-{index}", index=index, up=True, processes=processes)


def process(pid: int, memory: int | None = 1, kind: str = "compute") -> GpuProcess:
    return GpuProcess(
        pid=pid, memory_bytes=memory, kind="graphics" if kind == "graphics" else "compute"
    )


def test_whose_they_are_and_whether_they_belong_there() -> None:
    gpus = Gpus(
        count=3,
        devices=(
            on(0, *(process(pid) for pid in UNITS)),
            on(2, process(11)),
            Gpu(uuid="GPU-3", index=3, up=False),
        ),
    )
    found = attribute(gpus, REPLICAS, here)
    first, second, third = found.gpus.devices
    assert first.processes is not None
    assert {one.pid: (one.unit, one.managed, one.command) for one in first.processes} == {
        11: (ENGINE, True, "c11"),
        12: (ENGINE, True, "c12"),
        13: ("jupyter.service", False, "c13"),
        14: ("nvidia-persistenced.service", None, "c14"),
        15: (None, False, "c15"),
        16: ("user@1000", False, "c16"),
    }
    # the engine is not the owner of a GPU that it was not given
    assert second.processes is not None
    assert [one.managed for one in second.processes] == [False]
    assert third.processes is None
    assert [(one.uuid, one.unit, one.processes, one.managed) for one in found.units] == [
        ("GPU-0", ENGINE, 2, True),
        ("GPU-0", "jupyter.service", 1, False),
        ("GPU-0", "nvidia-persistenced.service", 1, True),
        ("GPU-0", "user@1000", 1, False),
        ("GPU-2", ENGINE, 1, False),
    ]
    assert found.unknown == frozenset()


@pytest.mark.parametrize(
    ("processes", "unit"),
    [
        (
            [process(11, 5), process(12, 7)],
            UnitOnGpu(uuid="GPU-0", unit=ENGINE, processes=2, memory_bytes=12, managed=True),
        ),
        # one that is in two lists holds its memory once
        (
            [process(11, 5), process(11, 5, "graphics"), process(12, 7)],
            UnitOnGpu(uuid="GPU-0", unit=ENGINE, processes=2, memory_bytes=12, managed=True),
        ),
        # a sum with an unknown part is not known
        (
            [process(11, 5), process(12, None)],
            UnitOnGpu(uuid="GPU-0", unit=ENGINE, processes=2, memory_bytes=None, managed=True),
        ),
        (
            [process(11, None), process(11, 0, "graphics")],
            UnitOnGpu(uuid="GPU-0", unit=ENGINE, processes=1, memory_bytes=0, managed=True),
        ),
    ],
)
def test_an_engine_of_several_processes_is_one(
    processes: list[GpuProcess], unit: UnitOnGpu
) -> None:
    found = attribute(Gpus(count=1, devices=(on(0, *processes),)), REPLICAS, here)
    assert found.units == (unit,)


def test_what_the_host_does_not_have_is_left_out_and_said_the_second_time(
    sleeper: subprocess.Popen[bytes],
) -> None:
    # 2**22 is the largest pid_max; 0 and what is negative come of a list of another layout
    alien = 2**22 + 1
    gpus = Gpus(
        count=1,
        devices=(on(0, process(sleeper.pid), process(alien), process(0), process(-7)),),
    )

    async def run() -> None:
        collector = ProcessCollector(Path("/proc"), REPLICAS)
        first = await collector.collect(gpus, 5.0)
        assert first.gpus.problems == ()
        assert first.gpus.devices[0].processes is not None
        assert [one.pid for one in first.gpus.devices[0].processes] == [sleeper.pid]
        (problem,) = (await collector.collect(gpus, 5.0)).gpus.problems
        assert problem.startswith(
            f"GPU 0: NVML lists processes that this host does not have (-7, 0, {alien}): "
        )
        alone = Gpus(count=1, devices=(on(0, process(sleeper.pid)),))
        assert (await collector.collect(alone, 5.0)).gpus.problems == ()
        assert (await collector.collect(gpus, 5.0)).gpus.problems == ()
        with pytest.raises(ProcessError, match="NVML could not be read"):
            await collector.collect(None, 5.0)

    asyncio.run(run())


def test_a_procfs_that_hangs_costs_only_this(tmp_path: Path) -> None:
    """A FIFO without a writer in the place of a file: to open it never ends."""
    (tmp_path / "7").mkdir()
    os.mkfifo(tmp_path / "7/stat")
    gpus = Gpus(count=1, devices=(on(0, process(7)),))

    async def run() -> None:
        collector = ProcessCollector(tmp_path, REPLICAS)
        for _ in range(2):
            with pytest.raises(ProcessError, match="cannot be read: no answer for"):
                await collector.collect(gpus, 0.05)
        assert [one.name for one in threading.enumerate()].count("process") == 1
        # one thread waits, and no second one; when it is let go all is as before
        handle = os.open(tmp_path / "7/stat", os.O_WRONLY)
        (tmp_path / "7/stat").unlink()
        os.close(handle)
        while True:
            try:
                found = await collector.collect(gpus, 5.0)
            except ProcessError:
                await asyncio.sleep(0.01)
                continue
            break
        assert found.unknown == {("GPU-0", 7)}

    asyncio.run(asyncio.wait_for(run(), 30))
