"""The life of the NVML worker: killed, stuck, of no use, small."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from farrier_agent.collectors.gpu import GpuError
from farrier_agent.nvml.keeper import NvmlWorker

from tests.agent.nvml.bench import FOREVER, Bench, failure, is_running, until, up

TRACER = """
import ctypes, sys
trace = ctypes.CDLL(None, use_errno=True).ptrace
trace.argtypes = [ctypes.c_long] * 4
assert trace(0x4206, int(sys.argv[1]), 0, 0) == 0, ctypes.get_errno()
print("seized", flush=True)
sys.stdin.read()
"""


def test_killed_between_readings(bench: Bench) -> None:
    async def test() -> None:
        for _ in range(5):
            assert up(await bench.read()) == [True] * 4
            os.kill(bench.pid, signal.SIGKILL)
        assert up(await bench.read()) == [True] * 4
        assert bench.worker.nvml.workers == 6
        await bench.worker.close()

    asyncio.run(test())


def test_killed_in_the_middle_of_a_reading(bench: Bench) -> None:
    async def test() -> None:
        await bench.read()
        bench.put("count 4;hang.nvmlDeviceGetMemoryInfo.1 300")
        reading = asyncio.create_task(bench.read())
        await asyncio.sleep(0.1)
        os.kill(bench.pid, signal.SIGKILL)
        gpus = await reading
        assert up(gpus) == [True] * 4
        assert all(gpu.temperature_celsius == 31 for gpu in gpus.devices)
        assert bench.worker.nvml.workers == 2
        await bench.worker.close()

    asyncio.run(test())


def test_it_ends_with_the_agent(nvml_library: Path, tmp_path: Path) -> None:
    """However the agent ends, and whatever the worker is doing."""
    for hang in ("", f"hang.nvmlDeviceGetMemoryInfo.1 {FOREVER}\n"):
        state = tmp_path / "state"
        state.write_text("count 2\n")
        program = f"""
import asyncio, sys
from farrier_agent.nvml.keeper import NvmlWorker
async def main():
    worker = NvmlWorker({str(nvml_library)!r}, tick=5.0)
    await worker.read(30.0)
    print(worker.nvml.pid, flush=True)
    open({str(state)!r}, "a").write({hang!r})
    await worker.read(60.0)
    await asyncio.sleep(600)
asyncio.run(main())
"""
        agent = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "FAKE_NVML_STATE": str(state)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert agent.stdout is not None
        worker = int(agent.stdout.readline())
        agent.kill()
        agent.wait()

        async def gone(worker: int = worker) -> bool:
            return not is_running(worker)

        asyncio.run(until(gone))


def test_one_that_cannot_be_killed_is_the_only_one(bench: Bench) -> None:
    """A tracer that does not wait for it keeps a killed process from being reaped."""

    async def test() -> None:
        await bench.read()
        stuck = bench.pid
        tracer = subprocess.Popen(
            [sys.executable, "-c", TRACER, str(stuck)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert tracer.stdout is not None
        assert tracer.stdin is not None
        assert tracer.stdout.readline() == b"seized\n"
        bench.put(f"count 4;hang.nvmlDeviceGetCount {FOREVER}")
        await failure(bench, 2.0)
        for _ in range(5):
            bench.clock.now += 100
            error = await failure(bench)
            assert error.kind == "hangs"
            assert "cannot be killed" in str(error)
            assert "reboot" in str(error)
        nvml = bench.worker.nvml
        assert nvml.stuck
        assert nvml.workers == 1
        with pytest.raises(GpuError, match="cannot be killed"):
            await bench.worker.release(60.0)
        await bench.worker.acquire()
        tracer.stdin.close()
        tracer.wait()
        bench.put("count 4")
        assert up(await bench.read()) == [True] * 4
        assert not bench.worker.nvml.stuck
        assert bench.worker.nvml.workers == 2
        await bench.worker.close()

    asyncio.run(test())


@pytest.mark.parametrize(
    ("state", "kind", "words"),
    [
        ("err.nvmlInit 9", "not_loaded", "Driver Not Loaded"),
        ("err.nvmlInit 18", "mismatch", "reboot the host"),
        ("err.nvmlInit 4", "no_permission", "Insufficient Permissions"),
        ("err.nvmlDeviceGetCount 18", "mismatch", "reboot the host"),
        ("err.nvmlDeviceGetCount 1", "failed", "Uninitialized"),
        ("err.nvmlDeviceGetUtilizationRates.3 9", "not_loaded", "Driver Not Loaded"),
    ],
)
def test_an_nvml_of_no_use_is_named_and_another_process_tries(
    bench: Bench, state: str, kind: str, words: str
) -> None:
    async def test() -> None:
        await bench.read()
        bench.put(f"count 4;{state}")
        if "nvmlInit" in state:
            os.kill(bench.pid, signal.SIGKILL)
        error = await failure(bench)
        assert error.kind == kind
        assert words in str(error)
        assert bench.worker.nvml.kind == kind
        for _ in range(100):
            assert str(await failure(bench)) == str(error)
        assert bench.worker.nvml.workers < 5  # no tight loop
        bench.put("count 4")
        bench.clock.now += 61
        assert up(await bench.read()) == [True] * 4
        await bench.worker.close()

    asyncio.run(test())


def test_no_library_until_there_is_one(
    nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        later = tmp_path / "libnvidia-ml.so.1"
        bench = Bench(later, tmp_path)
        monkeypatch.setenv("FAKE_NVML_STATE", str(bench.state_path))
        error = await failure(bench)
        assert error.kind == "no_library"
        assert str(later) in str(error)
        later.write_bytes(nvml_library.read_bytes())
        bench.clock.now += 61
        assert up(await bench.read()) == [True] * 4
        await bench.worker.close()

    asyncio.run(test())


def test_its_size(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Room for the agent beside it in 48 MiB: it has no asyncio, no ssl, no web server."""

    async def test() -> None:
        for _ in range(2):  # the first one may compile what it imports
            bench.put("count 8")
            await bench.read()
            for _ in range(20):
                await bench.read()
            words = Path(f"/proc/{bench.pid}/smaps_rollup").read_text()
            loaded = Path(f"/proc/{bench.pid}/maps").read_text()
            await bench.worker.release(60.0)
            await bench.worker.acquire()
        sizes = {name: int(kb) for name, kb in re.findall(r"(\w+):\s+(\d+) kB", words)}
        unshared = sizes["Private_Clean"] + sizes["Private_Dirty"]
        with capsys.disabled():
            print(f"\nNVML worker: {sizes['Rss']} kB resident, {unshared} kB of its own")
        assert unshared < 20 * 1024
        assert "ssl" not in loaded
        await bench.worker.close()

    asyncio.run(test())


def test_the_collector_is_the_worker(bench: Bench) -> None:
    from farrier_agent.collectors.gpu import GpuCollector

    async def test() -> None:
        collector = GpuCollector(str(bench.library))
        assert isinstance(collector.worker, NvmlWorker)
        assert up(await collector.collect(deadline=20.0)) == [True] * 4
        assert collector.nvml.workers == 1
        await collector.close()

    asyncio.run(test())


def test_what_the_binding_does_not_need_is_loaded_when_it_does(bench: Bench) -> None:
    program = """
import sys
from farrier_agent.nvml.program import _spare_find_library
_spare_find_library()
import pynvml, ctypes.util
print("shutil" in sys.modules, pynvml.find_library("c"), "shutil" in sys.modules)
"""
    command = [sys.executable, "-I", "-c", program]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout == "False libc.so.6 True\n"
