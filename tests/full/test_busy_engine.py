"""Ten minutes of a full queue: never wedged; then a wedge, found within 30 s (11 min)."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections import Counter

from farrier_agent.engines import ENGINES
from farrier_agent.liveness import Patience
from farrier_agent.loopback import asker
from farrier_agent.vitals import Vitals, read_load

from tests.agent.standin import Client, engine

MINUTES = 10
TICK = 5.0
CLIENTS = 40
AT_ONCE = 4


class Load:
    """Clients of every kind: streams, whole answers, stalled uploads, answers nobody reads."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._over = threading.Event()
        self.done: Counter[str] = Counter()
        self._stalled = [self._upload(), self._unread()]
        for number in range(CLIENTS):
            threading.Thread(target=self._ask, args=(number,), daemon=True).start()

    def _ask(self, number: int) -> None:
        while not self._over.is_set():
            try:
                status, _ = self._client.chat(stream=number % 2 == 0, tokens=20 + number)
                self.done[str(status)] += 1
            except (OSError, http.client.HTTPException) as error:
                self.done[type(error).__name__] += 1
                self._over.wait(1)

    def _upload(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self._client.port)
        connection.putrequest("POST", "/v1/completions")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b'{"model": ')
        return connection

    def _unread(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self._client.port)
        body = {"model": "tiny", "prompt": "x", "stream": True, "max_tokens": 50}
        connection.request("POST", "/v1/completions", json.dumps(body))
        return connection

    def end(self) -> None:
        """Begin nothing any more."""
        self._over.set()
        for connection in self._stalled:
            connection.close()


async def watch(client: Client, load: Load) -> tuple[Counter[str], float]:
    """The verdicts while it is busy, and the seconds until a wedge was found."""
    life = Vitals(asker(client.port), ENGINES["vllm"], "tiny", Patience())
    seen: Counter[str] = Counter()

    async def look() -> str:
        state = (await life.look("a", sockets=CLIENTS + 2, moved=0)).state
        await asyncio.sleep(TICK)
        return state

    end = time.monotonic() + MINUTES * 60
    while time.monotonic() < end:
        seen[await look()] += 1
    full = await read_load(asker(client.port), ENGINES["vllm"], deadline=5)
    assert full is not None
    assert full.running == AT_ONCE
    assert full.waiting is not None
    assert full.waiting >= CLIENTS // 2
    assert set(load.done) == {"200"}, load.done
    await asyncio.to_thread(client.manners, answers="wedge")
    assert client.listens()
    wedged = time.monotonic()
    while (await life.look("a", sockets=CLIENTS + 2, moved=0)).state != "wedged":
        assert time.monotonic() - wedged < 60
        await asyncio.sleep(TICK)
    return seen, time.monotonic() - wedged


def test_a_full_queue_is_never_taken_for_a_wedge_and_a_wedge_is_found() -> None:
    options = (f"--max-running={AT_ONCE}", "--token-delay=0.02")
    with engine(*options) as (client, _):
        load = Load(client)
        seen, seconds = asyncio.run(watch(client, load))
        load.end()
    assert set(seen) == {"busy"}
    assert seen["busy"] >= MINUTES * 60 / TICK * 0.8
    assert seconds <= 30
