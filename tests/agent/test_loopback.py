"""One GET against servers with bad manners."""

from __future__ import annotations

import asyncio
import time

import pytest
from farrier_agent import loopback
from farrier_agent.engines import Answer

from tests.agent.host import free_port


async def against(data: bytes, *, stay: bool = False, deadline: float = 5.0) -> Answer:
    """GET from a server that sends *data* and closes, or stays silent after it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        if stay:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        return await loopback.get(port, "/health", deadline=deadline)
    finally:
        server.close()


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Answer(status=200, body=b"ok")),
        (b"HTTP/1.0 503 No\r\n\r\nbusy", Answer(status=503, body=b"busy")),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            Answer(status=200, body=b"ok"),
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", Answer(status=204)),
    ],
)
def test_answers(data: bytes, answer: Answer) -> None:
    assert asyncio.run(against(data)) == answer


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 100_000, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2_000_000, "larger than"),
    ],
)
def test_what_is_no_answer(data: bytes, complaint: str) -> None:
    assert complaint in (asyncio.run(against(data)).error or "")


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"])
def test_a_silent_server_costs_the_deadline_and_no_more(data: bytes) -> None:
    begun = time.monotonic()
    answer = asyncio.run(against(data, stay=True, deadline=0.3))
    assert answer.error == "no answer within 0.3 s"
    assert time.monotonic() - begun < 3


def test_nobody_listens() -> None:
    answer = asyncio.run(loopback.get(free_port(), "/health", deadline=5))
    assert "nothing listens" in (answer.error or "")
