"""Clients that ask for one stream after another, as fast as they are answered. Runs on the host.

    loop.py ADDRESS:PORT PATH KEY CLIENTS REQUESTS TOKENS MODEL

Prints as JSON: seconds from the first request to the last end, the streams that were whole, their
tokens as the engine counted them, and the seconds to each first event. Standard library only.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

PROMPT = "Tell a long story. " * 8


async def stream(address: str, head: bytes) -> tuple[int, float, bool]:
    """Tokens that the engine says it made, seconds to the first event, and whether it was whole."""
    host, _, port = address.rpartition(":")
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head)
    first, tokens, tail = 0.0, 0, b""
    status = (await reader.readline()).split()[1]
    while data := await reader.read(65536):
        if not first and b"data: " in data:
            first = time.monotonic() - began
        tail = (tail + data)[-4096:]
    writer.close()
    if b'"completion_tokens":' in tail:
        tokens = int(tail.rpartition(b'"completion_tokens":')[2].split(b",")[0].split(b"}")[0])
    return tokens, first, status == b"200" and b"data: [DONE]" in tail


async def client(address: str, head: bytes, requests: int) -> list[tuple[int, float, bool]]:
    """One after another."""
    return [await stream(address, head) for _ in range(requests)]


async def main() -> None:
    """All clients side by side."""
    address, path, key, clients, requests, tokens, model = sys.argv[1:8]
    body = json.dumps(
        {
            "model": model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": int(tokens),
            "ignore_eos": True,
            "messages": [{"role": "user", "content": PROMPT}],
        }
    ).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: bench",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    head = "\r\n".join([*lines, "", ""]).encode() + body
    began = time.monotonic()
    parts = await asyncio.gather(
        *(client(address, head, int(requests)) for _ in range(int(clients)))
    )
    ends = [one for part in parts for one in part]
    said = {
        "seconds": time.monotonic() - began,
        "whole": sum(whole for _, _, whole in ends),
        "tokens": sum(made for made, _, _ in ends),
        "first": [first for _, first, _ in ends],
    }
    print(json.dumps(said))


if __name__ == "__main__":
    asyncio.run(main())
