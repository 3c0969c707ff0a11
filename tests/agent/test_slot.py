"""How long a value lives."""

from __future__ import annotations

import asyncio
import time

from farrier_agent.collectors import CollectError
from farrier_agent.collectors.slot import Slot


async def good() -> str:
    return "value"


async def bad() -> str:
    raise CollectError("the source is gone")


async def broken() -> str:
    raise ZeroDivisionError("a defect")


def test_a_value_outlives_a_failure_but_not_three_ticks() -> None:
    slot: Slot[str] = Slot("one", tick=10.0)
    assert asyncio.run(slot.attempt(good)) == "value"
    assert asyncio.run(slot.attempt(bad)) is None
    now = time.monotonic()
    assert slot.current(now + 29) == "value"
    assert slot.current(now + 31) is None
    report = slot.report(now + 29)
    assert (report.success, report.fresh, report.error) == (False, True, "the source is gone")
    assert slot.report(now + 31).fresh is False
    assert report.last_success_at is not None


def test_what_never_ran_has_neither_value_nor_duration() -> None:
    slot: Slot[str] = Slot("one", tick=10.0)
    report = slot.report(time.monotonic())
    assert (report.success, report.fresh, report.duration_seconds) == (False, False, None)
    assert report.last_success_at is None
    assert slot.current(time.monotonic()) is None


def test_a_defect_in_a_collector_stays_its_own() -> None:
    slot: Slot[str] = Slot("one", tick=10.0)
    assert asyncio.run(slot.attempt(broken)) is None
    assert slot.report(time.monotonic()).error == "a defect"
    assert asyncio.run(slot.attempt(good)) == "value"
    assert slot.report(time.monotonic()).success
