"""Measures how fast an engine generates for one client: streams, one after the other.

Directly on the engine's port, so that the number is of the engine and its GPUs alone. Tokens are
those that the engine counts (``usage``), or else the stream's events.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median

import h11
import msgspec

from farrier_agent.fingerprint.made import Speed

__all__ = ["MeasureError", "measure"]

PATHS = ("/v1/chat/completions", "/v1/completions")
TOKENS = 256
"""Asked for in one stream."""
WORDS = "Count from 1 to 10000, in words."
_HEAD = 64 * 1024
_LINE = 1 << 20
NOT_THERE = frozenset({400, 404, 405, 501})


class MeasureError(Exception):
    """The engine's speed could not be measured; the message says why."""


class _Text(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Text = msgspec.field(default_factory=_Text)
    text: str | None = None

    @property
    def said(self) -> bool:
        return bool(self.text or self.delta.content or self.delta.reasoning_content)


class _Usage(msgspec.Struct):
    completion_tokens: int | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


_event = msgspec.json.Decoder(_Event)


@dataclass
class _Stream:
    begun: float
    first: float | None = None
    last: float | None = None
    events: int = 0
    counted: int | None = None
    whole: bool = False

    @property
    def tokens(self) -> int:
        return self.counted or self.events


@dataclass
class _Sum:
    firsts: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    def add(self, one: _Stream) -> None:
        if one.first is None or one.last is None:
            return
        self.firsts.append(one.first - one.begun)
        self.tokens += max(0, one.tokens - 1)
        self.seconds += one.last - one.first


async def measure(
    port: int,
    *,
    replica: str,
    model: str,
    engine: str,
    seconds: float,
    others: Callable[[], int],
) -> Speed:
    """Generate for *seconds* and say how fast it was. Raises MeasureError.

    *others* says how many requests of others are in work; it is asked all the while.
    """
    begun = time.monotonic()
    end = begun + seconds
    most = others()
    sums, path = _Sum(), 0
    refused = "it did not answer"
    while (left := end - time.monotonic()) > 0 and path < len(PATHS):
        stream = _Stream(time.monotonic())
        status = 200
        try:
            status = await asyncio.wait_for(_stream(port, PATHS[path], model, stream), left)
        except asyncio.TimeoutError:
            pass  # what came of it counts
        except (OSError, h11.ProtocolError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise MeasureError(f"replica {replica} was not measured: {why}") from error
        if status in NOT_THERE:
            path += 1
            refused = f"it answers {status}: it has no generations"
        elif status != 200:
            refused = f"it answers {status}"
            break
        sums.add(stream)
        most = max(most, others())
    if not sums.tokens or sums.seconds <= 0:
        raise MeasureError(f"replica {replica} was not measured: {refused}")
    return Speed(
        replica=replica,
        model=model,
        engine=engine,
        tokens_per_second=round(sums.tokens / sums.seconds, 3),
        first_token_seconds=round(median(sums.firsts), 6),
        requests=len(sums.firsts),
        seconds=round(time.monotonic() - begun, 3),
        others=most,
    )


async def _stream(port: int, path: str, model: str, stream: _Stream) -> int:
    """Ask for one stream and read it to its end; the status. ValueError for one without its end."""
    prompt = (
        {"messages": [{"role": "user", "content": WORDS}]}
        if path == PATHS[0]
        else {"prompt": WORDS}
    )
    body = {
        "model": model,
        "max_tokens": TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **prompt,
    }
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD)
        data = msgspec.json.encode(body)
        head = h11.Request(
            method="POST",
            target=path,
            headers=[
                ("Host", f"127.0.0.1:{port}"),
                ("Connection", "close"),
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(data))),
            ],
        )
        writer.write((connection.send(head) or b"") + (connection.send(h11.Data(data)) or b""))
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()
        status = 0
        async for found in _events(reader, connection):
            if isinstance(found, int):
                status = found
            elif status == 200:
                _take(found, stream)
        if status == 200 and not stream.whole:
            raise ValueError("its stream ended without [DONE]")
        return status
    finally:
        writer.transport.abort()


async def _events(
    reader: asyncio.StreamReader, connection: h11.Connection
) -> AsyncIterator[int | bytes]:
    """The status, then each line of the answer that has data."""
    rest = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Response):
            yield event.status_code
        elif isinstance(event, h11.Data):
            *lines, rest = (rest + bytes(event.data)).split(b"\n")
            if len(rest) > _LINE:
                raise ValueError(f"a line of more than {_LINE} bytes")
            for line in lines:
                if line.startswith(b"data:"):
                    yield line[5:].strip()
        elif isinstance(event, h11.EndOfMessage):
            return


def _take(data: bytes, stream: _Stream) -> None:
    if data == b"[DONE]":
        stream.whole = True
        return
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        event = _event.decode(data)
        now = time.monotonic()
        if any(one.said for one in event.choices):
            stream.first = stream.first or now
            stream.last = now
            stream.events += 1
        if event.usage and event.usage.completion_tokens:
            stream.counted = event.usage.completion_tokens
