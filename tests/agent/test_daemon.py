"""What of the daemon cannot be provoked from outside at will."""

from __future__ import annotations

import asyncio
import time

from farrier_agent.daemon import cancel


def test_a_task_that_loses_a_cancellation_is_cancelled_again() -> None:
    lost = 0

    async def deaf() -> None:
        nonlocal lost
        while lost < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
        await asyncio.sleep(60)

    async def main() -> bool:
        tasks = [asyncio.create_task(deaf()), asyncio.create_task(asyncio.sleep(60))]
        await asyncio.sleep(0)
        await cancel(tasks)
        return all(task.cancelled() for task in tasks)

    begun = time.monotonic()
    assert asyncio.run(main())
    assert lost == 2
    assert time.monotonic() - begun < 5
