"""A small HTTP client for one question: bounded in time and in size."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import h11

from farrier_agent.engines.answer import Answer, Question

__all__ = ["Ask", "ask", "asker", "get"]

Ask = Callable[[Question, float], Awaitable[Answer]]
"""Puts a question with a deadline in seconds; never raises for what it meets."""

MAX_BODY = 1024 * 1024
MAX_HEAD = 64 * 1024


async def get(port: int, path: str, *, deadline: float, host: str = "127.0.0.1") -> Answer:
    """GET *path* from *host*:*port* within *deadline* seconds. Never raises for what it meets."""
    return await ask(port, Question(path), deadline=deadline, host=host)


def asker(port: int, host: str = "127.0.0.1") -> Ask:
    """What puts questions to *host*:*port*."""
    return lambda question, deadline: ask(port, question, deadline=deadline, host=host)


async def ask(port: int, question: Question, *, deadline: float, host: str = "127.0.0.1") -> Answer:
    """Put *question* to *host*:*port* and read the answer to its end, within *deadline* seconds.

    Never raises for what it meets.
    """
    try:
        return await asyncio.wait_for(_ask(host, port, question), deadline)
    except asyncio.TimeoutError:
        return Answer(error=f"no answer within {deadline:g} s")
    except ConnectionRefusedError:
        return Answer(error=f"nothing listens on {host}:{port}")
    except OSError as error:
        return Answer(error=error.strerror or str(error))
    except (h11.ProtocolError, ValueError) as error:
        return Answer(error=f"not HTTP: {error}")


async def _ask(host: str, port: int, question: Question) -> Answer:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        headers = [("Host", f"{host}:{port}"), ("Connection", "close"), *question.headers]
        if question.body is not None:
            headers.append(("Content-Length", str(len(question.body))))
        head = h11.Request(method=question.method, target=question.path, headers=headers)
        writer.write(connection.send(head) or b"")
        if question.body:
            writer.write(connection.send(h11.Data(question.body)) or b"")
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()
        return await _read(reader, connection)
    finally:
        # abort, not close: an engine that reads slowly must not hold the connection open
        writer.transport.abort()


async def _read(reader: asyncio.StreamReader, connection: h11.Connection) -> Answer:
    status, body = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                return Answer(error=f"the answer is larger than {MAX_BODY} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status=status, body=bytes(body))
