"""Reads paced streams and says, as JSON, how long their bytes were under way. Runs on the host.

    streams.py ADDRESS:PORT PATH KEY STREAMS MODEL

All streams begin within a second, evenly; each is one POST on a connection of its own. Standard
library only.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any


async def stream(address: str, head: bytes, late: float) -> tuple[float, list[float], bool]:
    """Seconds to the first byte of the answer, seconds under way of every event, and its end."""
    await asyncio.sleep(late)
    host, _, port = address.rpartition(":")
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head)
    first, under_way, tail = 0.0, [], b""
    while data := await reader.read(65536):
        now = time.monotonic_ns()
        first = first or time.monotonic() - began
        *events, tail = (tail + data).split(b"\n\n")
        for event in events:
            _, found, stamp = event.partition(b'"at":')
            if found:
                under_way.append((now - int(stamp.rstrip(b"}"))) / 1e9)
        if any(event.endswith(b"data: [DONE]") for event in events):
            writer.close()
            return first, under_way, True
    writer.close()
    return first, under_way, False


async def main() -> None:
    """Read them all."""
    address, path, key, number, model = sys.argv[1:6]
    body = json.dumps({"model": model, "stream": True, "messages": []}).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: bench",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    head = "\r\n".join([*lines, "", ""]).encode() + body
    count = int(number)
    began = time.monotonic()
    ends = await asyncio.gather(*(stream(address, head, n / count) for n in range(count)))
    said: dict[str, Any] = {
        "seconds": time.monotonic() - began,
        "whole": sum(whole for _, _, whole in ends),
        "first": [first for first, _, _ in ends],
        "under_way": [one for _, under_way, _ in ends for one in under_way],
    }
    print(json.dumps(said))


if __name__ == "__main__":
    asyncio.run(main())
