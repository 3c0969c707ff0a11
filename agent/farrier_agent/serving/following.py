"""Waits for a replica to get where somebody wants it, and tells how it gets on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from farrier_agent.control.protocol import Progress
from farrier_agent.control.server import Tell
from farrier_agent.draining.record import Phase, Record
from farrier_agent.serving.house import OfReplica
from farrier_agent.serving.life import boottime

__all__ = ["follow", "progress", "watch"]

EVERY = 1.0


async def follow(one: OfReplica, tell: Tell, over: Callable[[Record], bool]) -> Record:
    """Tell of *one* until its record is *over*; that record."""
    while True:
        record = one.life.record
        if record is not None:
            if over(record):
                return record
            await tell(progress(one, record))
        begun = asyncio.get_running_loop().time()
        await one.life.news(EVERY)
        # news may come in bursts, as a warm-up's words; nobody reads faster than this
        await asyncio.sleep(max(0.0, begun + 0.05 - asyncio.get_running_loop().time()))


async def watch(one: OfReplica, task: asyncio.Task[Any], tell: Tell) -> None:
    """Tell of *one* until *task* is done."""
    while not task.done():
        if one.life.record is not None:
            await tell(progress(one, one.life.record))
        news = asyncio.ensure_future(one.life.news(1.0))
        await asyncio.wait({task, news}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)


def progress(one: OfReplica, record: Record) -> Progress:
    """How *one* fares, for whoever waits for it."""
    drain = record.drain if record.phase is Phase.DRAINING else None
    text = one.life.warming or "" if record.phase is Phase.WARMING else ""
    if drain is not None and not drain.closed:
        text = "settling: requests are still accepted"
    elif drain is not None and drain.extensions:
        text = f"its deadline passed and was extended {drain.extensions} times"
    return Progress(
        replica=one.life.name,
        state=record.phase.value,
        in_flight=one.looker.in_flight if drain is None or not drain.closed else drain.in_flight,
        remaining=None if drain is None else max(0.0, drain.deadline - boottime()),
        text=one.life.problem or text,
    )
