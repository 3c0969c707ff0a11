"""An XID log under test: what it is asked, and what it shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from farrier_agent.collectors.xid import XidLog, Xids
from farrier_agent.gpus import Gpu, Gpus, XidEvent

from tests.agent.collectors.logs import C1

GPUS = Gpus(count=1, devices=(Gpu(uuid="GPU-1", index=0, up=True, pci_bus_id=C1),))


def told(number: int, at: float) -> XidEvent:
    return XidEvent(at=at, xid=number, pci_bus_id=C1, uuid="GPU-1", source="nvml")


def shown(xids: Xids) -> list[tuple[str, int, int]]:
    return [(one.uuid, one.xid, one.count) for one in xids.counts]


def once(log: XidLog, *, gpus: Gpus | None = GPUS) -> Xids:
    """One reading, and an orderly end."""

    async def look() -> Xids:
        if gpus is not None:
            log.learn(gpus)
        found = await log.collect(5.0)
        await log.close()
        return found

    return asyncio.run(look())


async def until(log: XidLog, question: Callable[[Xids], bool]) -> Xids:
    """The first answer that is as wanted."""
    while True:
        found = await log.collect(1.0)  # as long as the agent waits
        if question(found):
            return found
        await asyncio.sleep(0.01)
