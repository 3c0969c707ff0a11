"""The agent-check port, over real sockets: what a gateway gets, and what nobody can do to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from farrier_agent import agentcheck
from farrier_agent.agentcheck import AgentCheck, name_in
from hypothesis import given
from hypothesis import strategies as st

READY = b"up ready 100%\n"
DRAIN = b"up drain\n"
STATES = {"tiny": True, "old": False}


@contextlib.asynccontextmanager
async def serving(
    takes: Callable[[str], bool] = lambda name: STATES.get(name, False),
) -> AsyncIterator[tuple[AgentCheck, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    check = AgentCheck(takes, listener)
    task = asyncio.create_task(check.serve())
    try:
        yield check, listener.getsockname()[1]
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def ask(port: int, *parts: bytes, end: bool = False) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        if end:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (b"tiny\n", READY),
        (b"tiny\r\n", READY),
        (b"old\n", DRAIN),
        (b"nobody\n", DRAIN),  # no replica of this host: no new requests, and never `down`
        (b"tiny\nold\n", READY),
        (b"x" * 63 + b"\n", DRAIN),
    ],
)
def test_a_name_is_answered_completely_and_in_one_line(question: bytes, answer: bytes) -> None:
    async def main() -> None:
        async with serving() as (check, port):
            assert await ask(port, question) == answer
            assert (check.answered, check.refused) == (1, 0)

    run(main)


@pytest.mark.parametrize(
    "question",
    [b"\n", b"Tiny\n", b"tiny \n", b"-tiny\n", b"a/../b\n", b"\xff\xfe\n", b"x" * 64 + b"\n"],
)
def test_what_is_no_name_gets_no_answer(question: bytes) -> None:
    async def main() -> None:
        async with serving() as (check, port):
            assert await ask(port, question) == b""
            assert (check.answered, check.refused) == (0, 1)
            assert await ask(port, b"tiny\n") == READY

    run(main)


def test_a_name_may_come_in_pieces() -> None:
    async def main() -> None:
        async with serving() as (_, port):
            assert await ask(port, b"t", b"in", b"y", b"\n") == READY

    run(main)


def test_an_endless_line_is_cut_at_once() -> None:
    async def main() -> None:
        async with serving() as (check, port):
            begun = time.monotonic()
            assert await ask(port, b"a" * (agentcheck.MAX_QUESTION + 1)) == b""
            assert time.monotonic() - begun < agentcheck.PATIENCE
            assert check.refused == 1

    run(main)


def test_a_client_that_ends_its_line_by_closing_gets_no_answer() -> None:
    async def main() -> None:
        async with serving() as (_, port):
            assert await ask(port, b"tiny", end=True) == b""

    run(main)


def test_silence_is_closed_after_a_while() -> None:
    async def main() -> None:
        async with serving() as (check, port):
            begun = time.monotonic()
            assert await ask(port) == b""
            assert agentcheck.PATIENCE * 0.9 < time.monotonic() - begun < agentcheck.PATIENCE + 5
            assert check.refused == 1

    run(main)


def test_a_slow_client_gains_no_time_by_each_byte() -> None:
    async def main() -> None:
        async with serving() as (check, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            begun = time.monotonic()
            with contextlib.suppress(ConnectionError):
                while not reader.at_eof() and check.refused == 0:
                    writer.write(b"a")
                    await writer.drain()
                    await asyncio.sleep(0.1)
            assert time.monotonic() - begun < agentcheck.PATIENCE + 5
            writer.close()

    run(main)


def test_two_hundred_silent_clients_keep_nobody_out() -> None:
    async def main() -> None:
        async with serving() as (check, port):
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]
            times = []
            for _ in range(50):
                begun = time.monotonic()
                assert await ask(port, b"tiny\n") == READY
                times.append(time.monotonic() - begun)
            assert max(times) < 1
            # those beyond the bound were closed for the newer ones
            assert check.refused >= 200 - agentcheck.MAX_CONNECTIONS
            for _, writer in silent:
                writer.close()

    run(main)


def test_a_defect_in_the_lookup_closes_one_connection_and_no_more() -> None:
    def takes(name: str) -> bool:
        return {"tiny": True}[name]

    async def main() -> None:
        async with serving(takes) as (_, port):
            assert await ask(port, b"other\n") == b""
            assert await ask(port, b"tiny\n") == READY

    run(main)


def test_the_end_of_serving_closes_what_is_open() -> None:
    async def main() -> None:
        async with serving() as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await ask(port, b"tiny\n") == READY  # so the silent one was accepted before
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 1) == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    run(main)


@given(st.binary(max_size=200))
def test_any_line_is_a_label_or_nothing(line: bytes) -> None:
    name = name_in(line)
    if name is not None:
        assert 0 < len(name) <= 63
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert not name.startswith("-")
        assert not name.endswith("-")


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True))
def test_every_label_is_a_name(label: str) -> None:
    assert name_in(label.encode()) == label


def test_garbage_ends_in_no_answer_or_a_whole_one() -> None:
    """Whatever bytes come, the port lives on and says one of three things."""
    garbage: list[bytes] = []

    @given(st.binary(min_size=1, max_size=300))
    def collect(data: bytes) -> None:
        garbage.append(data)

    collect()

    async def main() -> None:
        async with serving() as (_, port):
            for data in garbage:
                assert await ask(port, data, end=True) in {b"", READY, DRAIN}
            assert await ask(port, b"tiny\n") == READY

    run(main)
