"""A crowd at the agent, for so many seconds; prints how many scrapes a second it got.

    python -m tests.bench.crowd ADDRESS HTTP-PORT CHECK-PORT SILENT SECONDS

One client scrapes ``/metrics`` without a pause; SILENT connections to the agent-check port ask
nothing, and come again when they are closed.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress


async def scrape(address: str, port: int, until: float) -> int:
    """How many whole pages came."""
    loop, pages = asyncio.get_running_loop(), 0
    while loop.time() < until:
        reader, writer = await asyncio.open_connection(address, port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        page = await reader.read()
        writer.close()
        pages += page.startswith(b"HTTP/1.1 200")
    return pages


async def keep_silent(address: str, port: int, until: float) -> None:
    """Connect, say nothing until it is closed, and connect again."""
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(address, port)
            with suppress(asyncio.TimeoutError, ConnectionError):
                await asyncio.wait_for(reader.read(), max(0.0, until - loop.time()))
            writer.close()
        # no tight loop where it is closed at once
        await asyncio.sleep(0.1)


async def main() -> None:
    """Be the crowd."""
    address, http, check, silent, seconds = sys.argv[1:6]
    until = asyncio.get_running_loop().time() + float(seconds)
    crowd = [keep_silent(address, int(check), until) for _ in range(int(silent))]
    others = asyncio.gather(*crowd)
    pages = await scrape(address, int(http), until)
    await others
    print(pages / float(seconds))


if __name__ == "__main__":
    asyncio.run(main())
