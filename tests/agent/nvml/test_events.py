"""XIDs as the worker hears them from NVML, and what comes of it when that hangs."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from farrier_agent.gpus import Gpus, XidEvent

from tests.agent.nvml.bench import FOREVER, Bench, until, up


async def heard(bench: Bench, count: int = 1, deadline: float = 20.0) -> list[XidEvent]:
    """So many events, and all that came with the last of them."""
    events: list[XidEvent] = []

    async def enough() -> bool:
        events.extend((await bench.read(deadline)).events)
        return len(events) >= count

    await until(enough)
    return events


async def listening(bench: Bench) -> None:
    """Until the worker waits for events."""
    before = bench.calls().count("nvmlEventSetWait")

    async def waits() -> bool:
        await bench.read()
        return bench.calls().count("nvmlEventSetWait") > before

    await until(waits)


def test_xids_come_with_the_next_reading_once(bench: Bench) -> None:
    async def test() -> None:
        await listening(bench)
        bench.put("count 4;xid.1 2 31;xid.2 0 48;xid.3 1 0")
        first, second = await heard(bench, 2)
        assert (first.xid, first.uuid) == (31, "GPU-fa4e0000-0000-4000-8000-000000000002")
        assert first.pci_bus_id == "00000000:28:00.0"
        assert first.source == "nvml"
        assert abs(first.at - bench.state_path.stat().st_mtime) < 60
        assert (second.xid, second.pci_bus_id) == (48, "00000000:18:00.0")
        for _ in range(3):
            assert (await bench.read()).events == ()
        os.kill(bench.pid, signal.SIGKILL)
        await listening(bench)
        assert (await bench.read()).events == ()
        bench.put("count 4;xid.1 2 31;xid.2 0 48;xid.4 3 94")
        assert [one.xid for one in await heard(bench)] == [94]
        await bench.worker.close()

    asyncio.run(test())


def test_of_a_lost_gpu_the_name_is_known(bench: Bench) -> None:
    async def test() -> None:
        await listening(bench)
        bench.put("count 4;3.lost 1;xid.1 3 79")
        (event,) = await heard(bench)
        assert event.xid == 79
        assert event.uuid == "GPU-fa4e0000-0000-4000-8000-000000000003"
        await bench.worker.close()

    asyncio.run(test())


def test_an_event_outlives_a_reading_that_fails(bench: Bench) -> None:
    async def test() -> None:
        await listening(bench)
        bench.put(f"count 4;xid.1 1 31;hang.nvmlDeviceGetMemoryInfo.0 {FOREVER}")
        assert [one.xid for one in await heard(bench, deadline=2.0)] == [31]
        assert (await bench.read()).events == ()
        await bench.worker.close()

    asyncio.run(test())


def test_a_gpu_without_events_takes_none_from_the_others(bench: Bench) -> None:
    async def test() -> None:
        bench.put("count 4;0.events.supported N/A;1.events.supported 1")
        await listening(bench)
        bench.put("count 4;xid.1 0 13;xid.2 3 31")
        assert [one.xid for one in await heard(bench)] == [31]
        assert (await bench.read()).problems == ()
        await bench.worker.close()

    asyncio.run(test())


def test_events_that_fail_are_begun_again(bench: Bench) -> None:
    async def test() -> None:
        bench.put("count 4;err.nvmlEventSetCreate 999")

        async def told() -> Gpus | None:
            gpus = await bench.read()
            return gpus if gpus.problems else None

        gpus = await until(told)
        assert gpus.problems == ("XIDs from NVML: nvmlEventSetCreate: Unknown Error",)
        assert up(gpus) == [True] * 4
        bench.put("count 4")
        await listening(bench)
        bench.put("count 4;xid.1 0 31")
        assert [one.xid for one in await heard(bench)] == [31]
        assert (await bench.read()).problems == ()
        assert bench.worker.nvml.workers == 1
        await bench.worker.close()

    asyncio.run(test())


@pytest.mark.parametrize(
    "function", ["nvmlEventSetCreate", "nvmlDeviceRegisterEvents.2", "nvmlEventSetWait"]
)
def test_a_hang_among_the_events_holds_up_no_reading(bench: Bench, function: str) -> None:
    async def test() -> None:
        bench.put(f"count 4;hang.{function} {FOREVER}")
        for _ in range(20):
            gpus = await bench.read()
            assert up(gpus) == [True] * 4
            assert gpus.problems == ()
        assert bench.worker.nvml.workers == 1
        await bench.worker.close()

    asyncio.run(test())


def test_a_thread_that_hangs_is_told_and_its_worker_replaced_now_and_then(bench: Bench) -> None:
    async def test() -> None:
        bench.put(f"count 4;hang.nvmlDeviceRegisterEvents.2 {FOREVER}")

        async def told() -> Gpus | None:
            gpus = await bench.read()
            await asyncio.sleep(0.2)
            return gpus if gpus.problems else None

        gpus = await until(told)
        assert gpus.problems == ("XIDs from NVML: nvmlDeviceRegisterEvents of GPU 2 hangs",)
        assert up(gpus) == [True] * 4
        assert bench.worker.nvml.kind is None
        bench.put("count 4")
        await bench.read()
        assert bench.worker.nvml.workers == 2
        await listening(bench)
        await bench.worker.close()

    asyncio.run(test())
