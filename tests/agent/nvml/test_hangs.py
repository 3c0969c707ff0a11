"""Calls into NVML that do not return: what is lost by them, and what is not."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from farrier_agent.collectors.gpu import GpuError
from farrier_agent.gpus import Gpus

from tests.agent.nvml.bench import FOREVER, Bench, at, failure, is_running, until, up

SHORT = 2.0
"""Seconds of a deadline that is to be missed."""


async def hangs(bench: Bench, index: int) -> Gpus:
    """The first reading in which that GPU hangs."""

    async def read() -> Gpus | None:
        try:
            gpus = await bench.read(SHORT)
        except GpuError:
            bench.clock.now += 1  # out of the back-off, in which it would be for ever
            return None
        return gpus if any(gpu.index == index and not gpu.up for gpu in gpus.devices) else None

    return await until(read)


@pytest.mark.parametrize(
    "function",
    [
        "nvmlDeviceGetTemperatureV",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetUtilizationRates",
        "*",
    ],
)
def test_a_gpu_that_hangs_costs_no_other_gpu_anything(bench: Bench, function: str) -> None:
    async def test() -> None:
        assert up(await bench.read()) == [True] * 4
        first = bench.pid
        bench.put(f"count 4;hang.{function}.2 {FOREVER}")
        gpu = at(await hangs(bench, 2), 2)
        assert gpu.problem == "hangs"
        assert "nvmlDeviceGet" in (gpu.problem_detail or "")
        assert gpu.uuid == "GPU-fa4e0000-0000-4000-8000-000000000002"
        assert gpu.name == "NVIDIA H200"
        assert gpu.temperature_celsius is None
        assert not is_running(first)
        gpus = await bench.read()
        assert up(gpus) == [True, True, False, True]
        assert all(one.temperature_celsius == 31 for one in gpus.devices if one.up)
        assert gpus.count == 4
        nvml = bench.worker.nvml
        assert nvml.kind is None
        assert nvml.call is not None
        assert nvml.call.endswith("of GPU 2")
        await bench.worker.close()

    asyncio.run(test())


def test_a_gpu_that_hangs_is_left_alone_then_tried_last(bench: Bench) -> None:
    async def test() -> None:
        await bench.read()
        bench.put(f"count 4;hang.*.0 {FOREVER}")
        await hangs(bench, 0)
        await bench.read()
        workers = bench.worker.nvml.workers
        bench.forget_calls()
        for _ in range(3):
            assert up(await bench.read()) == [False, True, True, True]
        assert bench.calls_on(0) == []
        assert bench.worker.nvml.workers == workers
        # it is tried when its time has come, and the others are read before it hangs again
        bench.clock.now += 11
        bench.forget_calls()
        gpus = await bench.read(SHORT)
        assert up(gpus) == [False, True, True, True]
        assert all(one.temperature_celsius == 31 for one in gpus.devices if one.up)
        assert len(bench.calls_on(0)) == 1
        await bench.read()
        # then it is left alone for twice as long
        bench.clock.now += 11
        bench.forget_calls()
        await bench.read()
        assert bench.calls_on(0) == []
        # and is back when it answers
        bench.put("count 4")
        bench.clock.now += 11
        assert up(await bench.read()) == [True] * 4
        assert bench.worker.nvml.call is None
        await bench.worker.close()

    asyncio.run(test())


@pytest.mark.parametrize("function", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID"])
def test_a_gpu_that_hangs_before_it_has_a_name(bench: Bench, function: str) -> None:
    async def test() -> None:
        bench.put(f"count 3;hang.{function}.1 {FOREVER}")

        async def others() -> Gpus | None:
            try:
                gpus = await bench.read(SHORT)
            except GpuError:
                bench.clock.now += 1  # out of the back-off, in which it would be for ever
                return None
            return gpus if len(gpus.devices) == 2 else None

        gpus = await until(others)
        assert [gpu.index for gpu in gpus.devices] == [0, 2]
        assert gpus.count == 3
        assert any("GPU 1 hangs, its UUID is not known" in one for one in gpus.problems)
        await bench.worker.close()

    asyncio.run(test())


def test_a_new_worker_knows_who_hangs_in_its_handle(bench: Bench) -> None:
    async def test() -> None:
        await bench.read()
        bench.put(f"count 4;hang.nvmlDeviceGetHandleByIndex.3 {FOREVER}")
        os.kill(bench.pid, signal.SIGKILL)
        gpu = at(await hangs(bench, 3), 3)
        assert gpu.uuid == "GPU-fa4e0000-0000-4000-8000-000000000003"
        await bench.worker.close()

    asyncio.run(test())


def test_all_gpus_hang_and_come_back(bench: Bench) -> None:
    async def test() -> None:
        bench.put("count 2")
        await bench.read()
        bench.put(f"count 2;hang.*.0 {FOREVER};hang.*.1 {FOREVER}")

        async def both() -> bool:
            bench.clock.now += 5  # out of the back-off, not yet time to try them again
            try:
                return up(await bench.read(SHORT)) == [False, False]
            except GpuError:
                return False

        await until(both)
        bench.put("count 2")
        bench.clock.now += 700

        async def back() -> bool:
            return up(await bench.read()) == [True, True]

        await until(back)
        await bench.worker.close()

    asyncio.run(test())


@pytest.mark.parametrize("function", ["nvmlDeviceGetCount", "nvmlDeviceGetCount hung twice"])
def test_a_call_on_no_gpu_is_a_failure_of_all(bench: Bench, function: str) -> None:
    async def test() -> None:
        await bench.read()
        bench.put(f"count 4;hang.nvmlDeviceGetCount {FOREVER}")
        if "twice" in function:
            await failure(bench, SHORT)
        error = await until(lambda: _in_call(bench, "nvmlDeviceGetCount"))
        assert "NVML hangs in nvmlDeviceGetCount" in str(error)
        nvml = bench.worker.nvml
        assert (nvml.kind, nvml.call, nvml.pid) == ("hangs", "nvmlDeviceGetCount", None)
        bench.put("count 4")
        bench.clock.now += 61
        assert up(await bench.read()) == [True] * 4
        assert bench.worker.nvml.kind is None
        await bench.worker.close()

    asyncio.run(test())


async def _in_call(bench: Bench, function: str) -> GpuError | None:
    error = await failure(bench, SHORT)
    if (error.call, error.kind) == (function, "hangs"):
        return error
    bench.clock.now += 1  # on a busy machine one is late before one hangs: out of the back-off
    return None


def test_a_worker_that_loads_nvml_has_its_time_and_no_more(bench: Bench) -> None:
    async def test() -> None:
        bench.put(f"count 4;hang.nvmlInit {FOREVER}")
        await until(lambda: _in_call(bench, "nvmlInit"))
        first = bench.pid
        await failure(bench, SHORT)
        assert bench.pid == first  # not begun anew: that would take as long again
        bench.put("count 4")
        assert up(await bench.read()) == [True] * 4
        assert bench.pid == first
        await bench.worker.close()

    asyncio.run(test())


def test_a_worker_that_never_loads_nvml_is_replaced_with_growing_pauses(
    nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        state = f"count 4;hang.nvmlInit {FOREVER}"
        bench = Bench(nvml_library, tmp_path, state, start_seconds=0.0)
        monkeypatch.setenv("FAKE_NVML_STATE", str(bench.state_path))
        started = []
        for _ in range(40):
            await failure(bench, 0.05)
            nvml = bench.worker.nvml
            started.append(nvml.workers)
            assert nvml.pid is None
            bench.clock.now += 1
        # at once, then after 1, 2, 4, 8, 16 s
        assert started[:2] == [1, 2]
        assert started[39] == 7
        await bench.worker.close()

    asyncio.run(test())


def test_a_worker_that_does_not_react_at_all_is_replaced(bench: Bench) -> None:
    """SIGSTOP is as near to the D state as a test comes: SIGTERM does not end it, SIGKILL does."""

    async def test() -> None:
        await bench.read()
        stopped = bench.pid
        os.kill(stopped, signal.SIGSTOP)
        assert "does not answer" in str(await failure(bench, SHORT))
        assert not is_running(stopped)
        assert up(await bench.read()) == [True] * 4
        assert bench.worker.nvml.workers == 2
        await bench.worker.close()

    asyncio.run(test())
