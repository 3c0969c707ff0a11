"""A member follows its head: the real program, an agent's real port, an engine of a few lines."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from farrier_agent.agentcheck import AgentCheck

ONE, TWO = "1" * 32, "2" * 32
ENGINE = (
    'trap "echo stopped >> $0; exit 0" TERM; echo began >> $0;'
    " while :; do sleep 0.05 & wait $!; done"
)
"""Tells in a file that it began, and that it was told to end."""


class Head:
    """The agent's port at a head; ``run`` is what it says, None for no answer."""

    def __init__(self) -> None:
        self.run: bytes | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def runs(self, invocation: str | None) -> None:
        self.run = b"ended\n" if invocation is None else f"running {invocation}\n".encode()

    def _serve(self) -> None:
        check = AgentCheck(lambda _name: False, self._listener, run=lambda _name: self.run)
        self._task = self._loop.create_task(check.serve())
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._loop.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)


@pytest.fixture
def head() -> Iterator[Head]:
    it = Head()
    try:
        yield it
    finally:
        it.close()


class Member:
    """The program of a member's unit, and what its engine wrote down."""

    def __init__(self, process: subprocess.Popen[str], book: Path) -> None:
        self.process = process
        self._book = book

    @property
    def engine(self) -> list[str]:
        return self._book.read_text().split() if self._book.exists() else []

    def until(self, true: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + 30
        while not true():
            assert time.monotonic() < end, f"{what}: {self.engine}"
            time.sleep(0.02)

    def ends(self) -> int:
        return self.process.wait(30)


@contextmanager
def following(head: Head, directory: Path, engine: str = ENGINE) -> Iterator[Member]:
    book = directory / "book"
    words = ["--head", f"127.0.0.1:{head.port}", "--replica", "big", "--every", "0.1"]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "farrier_agent.spanning.follow", *words, "--grace", "1"),
            *("--", "/bin/sh", "-c", engine, str(book)),
        ],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield Member(process, book)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_the_engine_begins_with_the_heads_run_and_ends_with_it(head: Head, tmp_path: Path) -> None:
    head.runs(None)
    with following(head, tmp_path) as member:
        assert member.process.stdout is not None
        assert "big does not run" in member.process.stdout.readline()
        assert member.engine == []
        head.runs(ONE)
        member.until(lambda: member.engine == ["began"], "it joined")
        head.runs(None)
        assert member.ends() == 0
        assert member.engine == ["began", "stopped"]


def test_another_run_of_the_head_is_another_one_of_the_member(head: Head, tmp_path: Path) -> None:
    head.runs(ONE)
    with following(head, tmp_path) as member:
        member.until(lambda: member.engine == ["began"], "it joined")
        head.runs(TWO)
        assert member.ends() == 0
        assert member.engine == ["began", "stopped"]


def test_losing_contact_changes_nothing(head: Head, tmp_path: Path) -> None:
    head.runs(ONE)
    with following(head, tmp_path) as member:
        member.until(lambda: member.engine == ["began"], "it joined")
        head.run = None  # closes without an answer
        with pytest.raises(subprocess.TimeoutExpired):
            member.process.wait(1)
        head.runs(ONE)
        with pytest.raises(subprocess.TimeoutExpired):
            member.process.wait(0.5)
        assert member.engine == ["began"]


def test_without_contact_nothing_is_started(head: Head, tmp_path: Path) -> None:
    with following(head, tmp_path) as member:
        assert member.process.stdout is not None
        assert f"is not told by 127.0.0.1:{head.port}" in member.process.stdout.readline()
        assert member.engine == []
        member.process.terminate()
        assert member.ends() == 0


def test_a_stop_is_passed_on_and_waited_for(head: Head, tmp_path: Path) -> None:
    head.runs(ONE)
    slow = ENGINE.replace("stopped >> $0;", "stopping >> $0; sleep 0.5; echo stopped >> $0;")
    with following(head, tmp_path, slow) as member:
        member.until(lambda: member.engine == ["began"], "it joined")
        member.process.terminate()
        assert member.ends() == 0
        assert member.engine == ["began", "stopping", "stopped"]


def test_an_engine_that_ends_by_itself_is_a_failure(head: Head, tmp_path: Path) -> None:
    head.runs(ONE)
    with following(head, tmp_path, "exit 7") as member:
        assert member.ends() == 7
    with following(head, tmp_path, "kill -9 $$") as member:
        assert member.ends() == 128 + signal.SIGKILL


def test_an_engine_that_does_not_end_is_killed(head: Head, tmp_path: Path) -> None:
    head.runs(ONE)
    deaf = "trap '' TERM; echo began >> $0; while :; do sleep 0.05; done"
    with following(head, tmp_path, deaf) as member:
        member.until(lambda: member.engine == ["began"], "it joined")
        head.runs(None)
        assert member.ends() == 0
