"""The driver let go of, and taken again: released and closed workers."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from farrier_agent.collectors.gpu import GpuError

from tests.agent.nvml.bench import FOREVER, Bench, failure, is_running, open_devices, up


def test_released_no_process_has_the_driver_open(bench: Bench) -> None:
    async def test() -> None:
        gpus = await bench.read()
        assert bench.pid in open_devices(bench.library)
        await asyncio.gather(bench.worker.release(60.0), bench.worker.release(30.0))
        await bench.worker.release(60.0)
        assert open_devices(bench.library) == []
        error = await failure(bench)
        assert error.kind == "released"
        nvml = bench.worker.nvml
        assert nvml.kind == "released"
        assert nvml.released_until_at is not None
        assert nvml.pid is None
        await bench.worker.acquire()
        await bench.worker.acquire()
        assert await bench.read() == gpus
        assert bench.worker.nvml.released_until_at is None
        await bench.worker.close()

    asyncio.run(test())


def test_what_is_released_is_taken_again_in_the_end(bench: Bench) -> None:
    async def test() -> None:
        await bench.read()
        await bench.worker.release(60.0)
        bench.clock.now += 59
        await failure(bench)
        assert bench.worker.nvml.workers == 1
        bench.clock.now += 2
        assert up(await bench.read()) == [True] * 4
        assert bench.worker.nvml.kind is None
        await bench.worker.close()

    asyncio.run(test())


def test_released_under_readings_that_hang_and_readings_that_do_not(bench: Bench) -> None:
    async def test() -> None:
        for state in ("count 4", f"count 4;hang.nvmlDeviceGetMemoryInfo.2 {FOREVER}"):
            await bench.read()
            bench.put(state)
            readings = [asyncio.create_task(bench.read()) for _ in range(4)]
            await asyncio.sleep(0.1)
            await bench.worker.release(60.0)
            assert open_devices(bench.library) == []
            results = await asyncio.gather(*readings, return_exceptions=True)
            errors = [one for one in results if isinstance(one, BaseException)]
            assert all(isinstance(one, GpuError) and one.kind == "released" for one in errors)
            assert bool(errors) is ("hang" in state)
            await bench.worker.acquire()
            bench.put("count 4")
        await bench.worker.close()

    asyncio.run(test())


def test_closed_there_is_no_worker(bench: Bench) -> None:
    async def test() -> None:
        await bench.read()
        pid = bench.pid
        await bench.worker.close()
        assert not is_running(pid)
        await failure(bench)
        assert bench.worker.nvml.workers == 1

    asyncio.run(test())


def test_no_descriptor_is_left_of_workers_that_are_gone(bench: Bench) -> None:
    async def test() -> None:
        await bench.read()
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(10):
            os.kill(bench.pid, signal.SIGKILL)
            await bench.read()
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        await bench.worker.close()

    asyncio.run(test())
