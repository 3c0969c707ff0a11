"""The small parts of a replica's life: its worker, what counts as busy, what is shown of it."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import Any

import msgspec
import pytest
from farrier_agent.draining.record import Asker, Drain, Now, Phase, Record
from farrier_agent.engines import Load
from farrier_agent.serving import view
from farrier_agent.serving.counting import Count, busy
from farrier_agent.serving.worker import Worker
from hypothesis import given
from hypothesis import strategies as st

NOW = Now("boot", 1000.0, 1_700_000_000.0)


def record(phase: Phase, **fields: Any) -> Record:
    known: dict[str, Any] = {"reason": "why", "by": "root", "since_at": 1.0, "boot_id": "boot"}
    return Record(replica="tiny", phase=phase, **known | fields)


def drain(**fields: Any) -> Drain:
    known: dict[str, Any] = {
        "askers": (Asker("root", "person", "an upgrade"),),
        "policy": "extend",
        "begun_at": NOW.epoch - 20,
        "begun": NOW.boot - 20,
        "settle_ends": NOW.boot - 17,
        "deadline": NOW.boot + 100,
    }
    return Drain(**known | fields)


@pytest.mark.parametrize(
    ("count", "load", "in_flight"),
    [
        (Count(3), None, 3),
        (Count(3), Load(running=None, waiting=2), 3),
        (Count(3), Load(running=4, waiting=2), 6),
        (Count(3), Load(running=0, waiting=0), 3),
        # those past the gate and the agent's own questions are nobody's business
        (Count(0, strangers=1, own=1), Load(running=2, waiting=0), 0),
        (Count(1, strangers=9), Load(running=2, waiting=0), 1),
        # what could not be counted is not nothing, whatever the engine tells
        (Count(None), Load(running=0, waiting=0), None),
    ],
)
def test_in_flight_is_the_larger_of_what_the_kernel_and_the_engine_say(
    count: Count, load: Load | None, in_flight: int | None
) -> None:
    assert busy(count, load) == in_flight


@given(
    st.integers(0, 100) | st.none(),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 99),
    st.integers(0, 99),
)
def test_never_less_than_the_kernel_says(
    requests: int | None, strangers: int, own: int, running: int, waiting: int
) -> None:
    found = busy(Count(requests, strangers, own), Load(running=running, waiting=waiting))
    if requests is None:
        assert found is None
    else:
        assert found is not None
        assert found >= requests


def test_a_worker_does_one_thing_after_the_other_and_hands_errors_on() -> None:
    async def main() -> None:
        worker = Worker("test")
        seen: list[int] = []

        def work(number: int) -> int:
            time.sleep(0.02 if number == 0 else 0)
            seen.append(number)
            return number

        results = await asyncio.gather(*(worker.do(partial(work, number)) for number in range(5)))
        assert results == seen == list(range(5))
        with pytest.raises(ZeroDivisionError):
            await worker.do(lambda: 1 // 0)
        assert await worker.do(lambda: "still there") == "still there"

    asyncio.run(main())


def test_work_of_one_who_was_cancelled_is_done_all_the_same() -> None:
    async def main() -> None:
        worker, begun, go_on, done = Worker("test"), *(threading.Event() for _ in range(3))

        def work() -> None:
            begun.set()
            assert go_on.wait(10)
            done.set()

        task = asyncio.ensure_future(worker.do(work))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        assert await worker.do(done.is_set)

    asyncio.run(main())


def test_a_hung_worker_does_not_hold_up_the_end_of_the_loop() -> None:
    never = threading.Event()

    async def main() -> None:
        task = asyncio.ensure_future(Worker("hangs").do(never.wait))
        await asyncio.sleep(0.01)
        task.cancel()

    begun = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - begun < 5
    never.set()


def test_a_drain_under_way_in_times_for_people() -> None:
    shown = view.drain(drain(), NOW)
    assert shown is not None
    assert (shown.asked_by, shown.reasons) == (("root",), ("an upgrade",))
    assert shown.deadline_at == pytest.approx(NOW.epoch + 100)
    assert shown.seconds == pytest.approx(20)
    assert shown.settling
    assert not shown.over
    ended = view.drain(drain(closed=True, ended=NOW.boot - 5, forced=True, cut=3), NOW)
    assert ended is not None
    assert ended.seconds == pytest.approx(15)
    assert (ended.over, ended.settling) == (True, False)
    assert (ended.forced, ended.cut) == (True, 3)
    assert view.drain(None, NOW) is None


@pytest.mark.parametrize(
    ("one", "gate_open", "words"),
    [
        (record(Phase.READY, gate="open"), True, None),
        (record(Phase.READY, gate="opening"), False, "being opened"),
        (record(Phase.READY, gate="open"), False, "farrier-agent ready tiny"),
        (record(Phase.WARMING), False, "warming: model: not there"),
        (record(Phase.DRAINING, drain=drain()), True, "draining: why"),
        (record(Phase.DRAINED, drain=drain()), False, "drained: an upgrade (asked by root)"),
        (record(Phase.FAILED), False, "failed: why"),
    ],
)
def test_why_a_replica_takes_no_requests(one: Record, gate_open: bool, words: str | None) -> None:
    said = view.why_not_ready(one, gate_open=gate_open, warming="model: not there")
    if words is None:
        assert said is None
    else:
        assert said is not None
        assert words in said


def test_every_phase_but_ready_is_a_reason() -> None:
    for phase in set(Phase) - {Phase.READY}:
        held = msgspec.structs.replace(record(phase), drain=drain())
        for one in (record(phase), held):
            for gate_open in (True, False, None):
                assert view.why_not_ready(one, gate_open=gate_open, warming=None)
