"""nginx's requests over a real Unix socket: who may tell them, and what happens to it meanwhile."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import stat
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from farrier_agent.collectors.datagrams import BATCH, MAX_MESSAGE, DatagramsError
from farrier_agent.collectors.requests import RequestLog

from tests.agent.test_requests_log import line

NOBODY = pwd.getpwuid(65534)
ME = pwd.getpwuid(os.getuid()).pw_name
PATIENCE = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the socket is to be: a directory that other users reach too."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.getuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    return tmp_path / "agent" / "requests.sock"


def run(
    test: Callable[[RequestLog], Awaitable[None]],
    path: Path,
    user: str = ME,
    *,
    queue: int | None = None,
) -> None:
    """*queue*: how long the kernel's queue is said to be; None: what it is."""

    async def scene() -> None:
        log = RequestLog(path, user, {"tiny": "org/tiny"})
        if queue is not None:
            said = path.parent.parent / "max_dgram_qlen"
            said.write_text(f"{queue}\n")
            log = RequestLog(path, user, {"tiny": "org/tiny"}, sysctl=said)
        await log.collect(1.0)
        try:
            await test(log)
        finally:
            log.close()

    asyncio.run(scene())


def sender(path: Path) -> socket.socket:
    """A socket like nginx's: connected, and never waiting."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.setblocking(False)
    one.connect(str(path))
    return one


async def until(log: RequestLog, **lines: int) -> None:
    """Wait until *log* counted so many *lines*."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while True:
        counted = (await log.collect(1.0)).lines
        if counted == {"counted": 0, "other": 0, "error": 0, "refused": 0, "garbled": 0} | lines:
            return
        assert loop.time() < end, counted
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("queue", [10, 512])
def test_what_nginx_sends_is_counted(path: Path, queue: int) -> None:
    async def scene(log: RequestLog) -> None:
        with sender(path) as nginx:
            nginx.send(line())
            nginx.send(line(code="503", engine_seconds="", engine_first_byte=""))
            nginx.send(b"nothing of the kind")
            nginx.send(line()[: MAX_MESSAGE // 2] + b" " * MAX_MESSAGE)
            await until(log, counted=2, garbled=2)
            nginx.send(line())
            await until(log, counted=3, garbled=2)
        counts = await log.collect(1.0)
        assert counts.replicas[0].codes == {"200": 2, "503": 1}
        assert counts.last_at is not None
        assert counts.full == 0

    run(scene, path, queue=queue)


_SEND = "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM);"
_SEND += " s.connect(sys.argv[1]); s.send(sys.argv[2].encode())"


async def send_as(uid: int, path: Path) -> None:
    """Send a line from a process of *uid*."""
    process = await asyncio.create_subprocess_exec(
        "/usr/bin/python3", "-I", "-c", _SEND, str(path), line().decode(), user=uid
    )
    assert await process.wait() == 0


def test_only_nginx_and_root_are_listened_to(path: Path) -> None:
    async def scene(log: RequestLog) -> None:
        path.chmod(0o722)  # as without nginx's group: whoever likes may send
        await send_as(65534, path)
        await until(log, counted=1)
        await send_as(1, path)
        await until(log, counted=1, refused=1)
        await send_as(0, path)
        await until(log, counted=2, refused=1)

    run(scene, path, NOBODY.pw_name)


def test_the_socket_is_for_nginxs_group_and_says_that_somebody_listens(path: Path) -> None:
    async def scene(_: RequestLog) -> None:
        seen = path.stat()
        assert stat.S_ISSOCK(seen.st_mode)
        # the owner's x is what nginx's -x looks at
        assert stat.S_IMODE(seen.st_mode) == 0o720
        assert seen.st_gid == pwd.getpwnam(ME).pw_gid

    run(scene, path)
    assert not path.exists(), "nginx would go on telling nobody"


def test_what_an_agent_left_that_was_killed_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.bind(str(path))
    left.close()

    async def scene(log: RequestLog) -> None:
        with sender(path) as nginx:
            nginx.send(line())
            await until(log, counted=1)

    run(scene, path)


def test_counts_outlive_a_socket_that_was_taken_away(path: Path) -> None:
    async def scene(log: RequestLog) -> None:
        with sender(path) as nginx:
            nginx.send(line())
            await until(log, counted=1)
            path.unlink()
            await log.collect(1.0)  # makes it again
            with pytest.raises(ConnectionRefusedError):
                nginx.send(line())
        with sender(path) as nginx:
            nginx.send(line())
            await until(log, counted=2)
        log.serve({"tiny": "org/tiny", "new": "new"})
        assert [one.codes for one in (await log.collect(1.0)).replicas] == [{"200": 2}, {}]

    run(scene, path)


def test_close_leaves_another_agents_socket_alone(path: Path) -> None:
    async def scene(_: RequestLog) -> None:
        path.unlink()
        path.touch()

    run(scene, path)
    assert path.exists()


@pytest.mark.parametrize(
    ("user", "what", "wanted"),
    [("no-such-user", "", "no user 'no-such-user'"), (ME, "file", "is there and is no socket")],
)
def test_what_is_wrong_is_said(path: Path, user: str, what: str, wanted: str) -> None:
    path.parent.mkdir()
    if what:
        path.touch()
    log = RequestLog(path, user, {})
    with pytest.raises(DatagramsError, match=wanted):
        asyncio.run(log.collect(1.0))
    assert path.exists() == bool(what)


FLOOD = 5000
_FLOOD = f"""
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(sys.argv[1])
for _ in range({FLOOD}):
    s.send(sys.argv[2].encode())
"""
"""Sends as fast as the queue takes it, and waits where nginx would drop: so each can be counted."""


def test_a_flood_starves_nobody_else_of_the_loop(path: Path) -> None:
    async def scene(log: RequestLog) -> None:
        flood = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-c", _FLOOD, str(path), line().decode()
        )
        longest, seen = 0.0, time.thread_time()
        while flood.returncode is None:
            await asyncio.sleep(0)
            longest, seen = max(longest, time.thread_time() - seen), time.thread_time()
        await until(log, counted=FLOOD)
        assert longest < 0.05  # of work between two turns of others; a batch takes about 2 ms

    assert FLOOD > 10 * BATCH
    run(scene, path)


def test_a_queue_that_was_full_is_said(path: Path) -> None:
    async def scene(log: RequestLog) -> None:
        with sender(path) as nginx:
            sent = 0
            with suppress(BlockingIOError):
                while True:
                    nginx.send(line())
                    sent += 1
            await until(log, counted=sent)
        assert (await log.collect(1.0)).full == 1

    run(scene, path)
