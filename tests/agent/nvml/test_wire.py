"""What agent and worker say, the page with the call, and how patient the agent is."""

from __future__ import annotations

import asyncio
import ctypes
import os
from contextlib import suppress
from pathlib import Path

import pytest
from farrier_agent.collectors.gpu import GpuError
from farrier_agent.gpus import Gpu, Gpus, XidEvent
from farrier_agent.nvml import wire
from farrier_agent.nvml.calling import Call, CallReader, CallWriter, new_page
from farrier_agent.nvml.patience import BackOff, HungGpus, Order
from hypothesis import given
from hypothesis import strategies as st

from tests.agent.nvml.bench import FOREVER, Bench, is_running, up

PIDFD_GETFD = 438

MESSAGES: list[wire.Answer] = [
    wire.Begun(number=1, gpus=Gpus(count=2, driver_version="580.1"), events_problem="none"),
    wire.Named(number=1, index=0, uuid="GPU-a", pci_bus_id="00000000:18:00.0"),
    wire.Read(number=1, gpu=Gpu(uuid="GPU-a", index=0, up=True, temperature_celsius=31.0)),
    wire.Done(number=1, gpus=Gpus(count=2, invalid_total={"power_watts": 3})),
    wire.Event(event=XidEvent(at=1.5, xid=79, uuid="GPU-a", source="nvml")),
    wire.Failed(number=1, kind="mismatch", words="reboot", call="nvmlInit"),
]


@given(st.lists(st.integers(1, 40), max_size=60))
def test_frames_come_out_whole_however_they_are_cut(cuts: list[int]) -> None:
    stream = b"".join(map(wire.encode, MESSAGES))
    frames, answers, heard = wire.Frames(), wire.Answers(), []
    for cut in [*cuts, len(stream)]:
        piece, stream = stream[:cut], stream[cut:]
        heard += [answers.decode(body) for body in frames.feed(piece)]
    assert heard == MESSAGES


@given(st.binary(max_size=200))
def test_nonsense_is_refused_and_never_more(data: bytes) -> None:
    frames, answers = wire.Frames(), wire.Answers()
    heard: list[object] = []
    with suppress(wire.WireError):
        heard += [answers.decode(body) for body in frames.feed(data)]
    assert heard == []


def test_a_length_beyond_all_reason_is_refused_at_once() -> None:
    with pytest.raises(wire.WireError, match="4294967295 bytes"):
        wire.Frames().feed(b"\xff\xff\xff\xff")


def worker_socket(pid: int) -> int:
    """A descriptor of this process of the worker's end of its socket."""
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    theirs = int(arguments[arguments.index(b"farrier_agent.nvml.program") + 1])
    ours: int = ctypes.CDLL(None, use_errno=True).syscall(
        PIDFD_GETFD, os.pidfd_open(pid), theirs, 0
    )
    assert ours >= 0, os.strerror(ctypes.get_errno())
    return ours


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff",
        b"Traceback (most recent call last):\n",
        b"\0\0\0\x03\xc1\xc1\xc1",
        wire.encode(wire.Ask(number=2)),
        wire.encode(MESSAGES[2])[:-1] + b"\xc1",
    ],
)
def test_garbage_from_the_worker_costs_the_worker(bench: Bench, garbage: bytes) -> None:
    async def test() -> None:
        await bench.read()
        pid, end = bench.pid, worker_socket(bench.pid)
        os.write(end, garbage)
        os.close(end)
        with pytest.raises(GpuError, match="not understood") as caught:
            await bench.read()
        assert caught.value.kind == "failed"
        assert not is_running(pid)
        assert up(await bench.read()) == [True] * 4
        await bench.worker.close()

    asyncio.run(test())


def test_answers_to_an_earlier_question_are_passed_over(bench: Bench) -> None:
    async def test() -> None:
        await bench.read()
        bench.put(f"count 4;hang.nvmlDeviceGetMemoryInfo.0 {FOREVER}")
        bench.forget_calls()
        reading = asyncio.create_task(bench.read())
        await bench.called("nvmlDeviceGetMemoryInfo 0")
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        bench.put("count 4;all.temperature 66")
        gpus = await bench.read()
        assert [gpu.temperature_celsius for gpu in gpus.devices] == [66.0] * 4
        assert bench.worker.nvml.workers == 1
        await bench.worker.close()

    asyncio.run(test())


def test_the_page_shows_the_call() -> None:
    page = new_page()
    writer, reader = CallWriter(page), CallReader(page)
    os.close(page)
    assert reader.read() == Call(0, "", 0)
    assert str(reader.read()) == ""
    writer("nvmlInit", -1)
    assert str(reader.read()) == "nvmlInit"
    writer("nvmlDeviceGetTotalEnergyConsumption", 15)
    writer("nvmlDeviceGetTotalEnergyConsumption", 15)
    assert reader.read() == Call(3, "nvmlDeviceGetTotalEnergyConsumption", 15)
    assert str(reader.read()) == "nvmlDeviceGetTotalEnergyConsumption of GPU 15"
    writer("nvml" + "x" * 100, 0)
    assert reader.read().function == "nvml" + "x" * 48
    reader.close()


def test_the_back_off_grows_to_a_minute_and_forgets() -> None:
    back_off, now, waits = BackOff(), 0.0, []
    for _ in range(9):
        back_off.failed(now)
        waits.append(back_off.left(now))
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert back_off.left(now + 59) == 1
    back_off.succeeded()
    assert back_off.left(now) == 0
    back_off.failed(now)
    assert back_off.left(now) == 0


def hung(gpu: int) -> Call:
    return Call(9, "nvmlDeviceGetPowerUsage", gpu)


def test_the_order_begins_elsewhere_every_time() -> None:
    gpus = HungGpus()
    assert gpus.order(1, 0.0) is None
    gpus.enumerated(3)
    assert [gpus.order(turn, 0.0) for turn in range(4)] == [
        Order((0, 1, 2), 3),
        Order((1, 2, 0), 3),
        Order((2, 0, 1), 3),
        Order((0, 1, 2), 3),
    ]
    gpus.enumerated(0)
    assert gpus.order(5, 0.0) == Order((), 0)


def test_a_gpu_that_hangs_is_out_for_a_growing_time_then_last() -> None:
    gpus = HungGpus(first=10.0, longest=30.0)
    gpus.enumerated(3)
    assert gpus.hung(hung(1), 100.0).until == 110.0
    assert gpus.order(1, 109.0) == Order((2, 0), 3)
    assert gpus.order(1, 110.0) == Order((2, 0, 1), 3)
    assert gpus.order(1, 110.0, {2, 0}) == Order((1,), 3)
    assert [gpus.hung(hung(1), 0.0).wait for _ in range(3)] == [20.0, 30.0, 30.0]
    gpus.answered(1)
    assert gpus.order(1, 0.0) == Order((1, 2, 0), 3)
    assert gpus.hung(hung(1), 0.0).wait == 10.0


def test_of_another_enumeration_nothing_is_known() -> None:
    gpus = HungGpus()
    gpus.enumerated(3)
    gpus.hung(hung(1), 0.0)
    gpus.enumerated(2)
    assert list(gpus) == []
    assert gpus.order(0, 0.0) == Order((0, 1), 2)
