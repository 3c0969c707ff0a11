"""The connection to a bus that is not there, hangs, or does not speak D-Bus."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from farrier_agent.units.bus import Bus, BusLostError, CallError, connect
from farrier_agent.units.watch import Units
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jeepney import (
    DBusAddress,
    HeaderFields,
    Message,
    Parser,
    new_error,
    new_method_return,
    new_signal,
)

THERE = DBusAddress("/a/b", bus_name="a.b", interface="a.b")
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(test(), 60)

    asyncio.run(main())


@contextlib.asynccontextmanager
async def daemon(path: Path, script: Script) -> AsyncIterator[None]:
    """A program at *path* that lets everybody in and then follows *script*."""
    writers = []

    async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError, EOFError):
            await reader.readuntil(b"\r\n")
            writer.write(b"OK 0123456789abcdef\r\n")
            await reader.readuntil(b"BEGIN\r\n")
            await script(reader, writer)

    server = await asyncio.start_unix_server(joined, str(path))
    try:
        yield
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        path.unlink(missing_ok=True)  # Python 3.13 removes it itself


async def requests(reader: asyncio.StreamReader) -> AsyncIterator[Message]:
    parser = Parser()
    while data := await reader.read(65536):
        for message in parser.feed(data):
            yield message


async def polite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers Hello and Echo, refuses Refuse, and sends a signal before each answer."""
    serial = 0
    async for message in requests(reader):
        serial += 2
        called = message.header.fields[HeaderFields.member]
        writer.write(new_signal(THERE, "Moved", "s", (called,)).serialise(serial))
        if called == "Refuse":
            answer = new_error(message, "a.b.Refused", "s", ("not today",))
        elif called == "Vanish":
            answer = new_error(message, "org.freedesktop.DBus.Error.NoReply", "s", ("gone",))
        else:
            answer = new_method_return(
                message, message.header.fields.get(HeaderFields.signature), message.body
            )
        if called != "Forget":
            writer.write(answer.serialise(serial + 1))


@contextlib.asynccontextmanager
async def connected(path: Path, script: Script) -> AsyncIterator[tuple[Bus, list[str]]]:
    heard: list[str] = []
    async with daemon(path, script):
        one = await connect(path, lambda signal: heard.append(signal.body[0]))
        try:
            yield one, heard
        finally:
            one.close()


def test_calls_are_answered_and_signals_heard_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path / "bus", polite) as (one, heard):
            answers = await asyncio.gather(
                *(one.call(THERE, "Echo", "s", (str(number),)) for number in range(50))
            )
            assert answers == [(str(number),) for number in range(50)]
            assert heard == ["Hello", *["Echo"] * 50]

    run(main)


def test_an_error_has_its_name_and_its_words(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path / "bus", polite) as (one, _):
            with pytest.raises(CallError, match="not today") as caught:
                await one.call(THERE, "Refuse")
            assert caught.value.name == "a.b.Refused"
            with pytest.raises(BusLostError, match="gone"):
                await one.call(THERE, "Vanish")
            assert await one.call(THERE, "Echo", "s", ("still here",)) == ("still here",)

    run(main)


def test_an_answer_that_never_comes_ends_the_connection(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path / "bus", polite) as (one, _):
            with pytest.raises(BusLostError, match=r"Forget was not answered within 0.1 s"):
                await one.call(THERE, "Forget", timeout=0.1)
            assert await one.lost()
            with pytest.raises(BusLostError):
                await one.call(THERE, "Echo")

    run(main)


def test_an_asker_that_gives_up_harms_no_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path / "bus", polite) as (one, _):
            for _ in range(20):
                task = asyncio.create_task(one.call(THERE, "Echo", "s", ("x",)))
                await asyncio.sleep(0)
                task.cancel()
            assert await one.call(THERE, "Echo", "s", ("y",)) == ("y",)

    run(main)


def test_who_waits_is_told_when_the_bus_closes(tmp_path: Path) -> None:
    async def hello_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for message in requests(reader):
            if message.header.fields[HeaderFields.member] != "Hello":
                writer.close()
                return
            writer.write(new_method_return(message, "s", (":1.1",)).serialise(1))

    async def main() -> None:
        async with connected(tmp_path / "bus", hello_only) as (one, _):
            calls = [one.call(THERE, "Echo") for _ in range(3)]
            told = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(error) for error in told] == [BusLostError] * 3
            assert await one.lost() == "the bus closed the connection"

    run(main)


def test_no_bus_at_all_is_an_error_with_its_path(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(BusLostError, match=f"{tmp_path}/bus: .*No such file"):
            await connect(tmp_path / "bus", lambda _: None)

    run(main)


def test_a_bus_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        async with daemon(tmp_path / "bus", silent):
            begun = time.monotonic()
            with pytest.raises(BusLostError, match="does not answer within"):
                await connect(tmp_path / "bus", lambda _: None, timeout=0.2)
            assert time.monotonic() - begun < 5

    run(main)


HUGE = b"l\x02\x00\x01" + (2**26).to_bytes(4, "little") + b"\x01\x00\x00\x00\x00\x00\x00\x00"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(min_size=1, max_size=300))
@example(HUGE)
def test_garbage_ends_the_connection_with_words(tmp_path: Path, data: bytes) -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for message in requests(reader):
            writer.write(new_method_return(message, "s", (":1.1",)).serialise(1) + data)
            await writer.drain()
            writer.write_eof()

    async def main() -> None:
        async with daemon(tmp_path / "bus", garbage):
            one = await connect(tmp_path / "bus", lambda _: None)
            assert await one.lost()
            one.close()

    run(main)


def test_a_bus_that_comes_and_goes_is_tried_again_and_again(tmp_path: Path) -> None:
    """The client's own loop survives every kind of bad bus; nothing is known meanwhile."""
    tries = []

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tries.append(1)
        if len(tries) % 2:
            writer.write(b"\x00garbage" * 10)
            await reader.read()
        writer.close()

    async def main() -> None:
        units = Units(["a.service"], path=tmp_path / "bus")
        task = asyncio.create_task(units.run())
        try:
            async with daemon(tmp_path / "bus", rude):
                while len(tries) < 4:
                    await asyncio.sleep(0.02)
                assert not task.done()
                assert units.state("a.service") is None
                assert units.problem("a.service")
        finally:
            task.cancel()
            await asyncio.wait({task}, timeout=5)
        assert task.cancelled()

    run(main)
