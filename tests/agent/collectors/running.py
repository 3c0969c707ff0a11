"""Asynchronous tests in a loop of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run *work* to its end; TimeoutError after 30 seconds."""

    async def bounded() -> None:
        await asyncio.wait_for(work(), 30)

    asyncio.run(bounded())
