"""The host's other clients, until they are ended: a gateway, and somebody with short requests.

    python -m tests.bench.clients ADDRESS KEY

A process of its own, so that the scrapes' times are not those of this work. Fails with the first
answer that is not what it should be.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import os
import sys
import time

from tests.bench.check import CHECK_PORT, ask_for
from tests.bench.onehost import REPLICAS, OneHostError

__all__ = ["EVERY", "NGINX"]

EVERY = 1.0
"""Seconds between two requests, which go to the replicas in turns."""
NGINX = 8080
_LONG = 7 * 86400.0


def _requests(address: str, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    due = time.monotonic()
    for replica in itertools.cycle(REPLICAS):
        connection = http.client.HTTPConnection(address, NGINX, timeout=60)
        body = json.dumps({"model": replica, "max_tokens": 1, "messages": []}).encode()
        connection.request("POST", f"/replicas/{replica}/v1/chat/completions", body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if answer.status != 200:
            raise OneHostError(f"a request to {replica}: {answer.status} {data[:200]!r}")
        due += EVERY
        time.sleep(max(0.0, due - time.monotonic()))


async def main(address: str, key: str) -> None:
    """Ask."""
    asking = asyncio.create_task(ask_for(_LONG, address, {"agent": CHECK_PORT}, gateways=1))
    requesting = asyncio.create_task(asyncio.to_thread(_requests, address, key))
    done, _ = await asyncio.wait({asking, requesting}, return_when=asyncio.FIRST_COMPLETED)
    print(*(task.exception() for task in done), file=sys.stderr)
    os._exit(1)  # not sys.exit: the other one goes on in its thread


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
