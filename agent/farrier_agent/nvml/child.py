"""One NVML worker process, as the agent has it: started, asked, heard, killed."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress

from farrier_agent.gpus import XidEvent
from farrier_agent.nvml import wire
from farrier_agent.nvml.calling import Call, CallReader, new_page
from farrier_agent.nvml.patience import Order

__all__ = ["GRACE", "Child"]

GRACE = 0.5
"""Seconds that SIGTERM, then SIGKILL has. A process that is not in the kernel ends at once."""

KEPT = 1000
"""XIDs that wait for the next reading; a GPU in a loop of errors must not eat the memory."""

_NOT_ITS = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"})
"""What systemd says to the agent alone."""


class Child:
    """A running worker. Raises OSError where no process can be started."""

    def __init__(self, library: str | None) -> None:
        self.number = 0
        """Number of the last :class:`~farrier_agent.nvml.wire.Ask`."""
        self.begun_at = time.monotonic()
        self.loaded = False
        """It has read from NVML."""
        ours, theirs = socket.socketpair()
        page = new_page()
        try:
            self._call = CallReader(page)
            handed = (theirs.fileno(), page)
            command = [sys.executable, "-I", "-m", "farrier_agent.nvml.program"]
            arguments = [*map(str, handed), str(os.getpid()), *([library] if library else [])]
            self._process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=handed,
                # what a second thread would cost in arenas of malloc
                env={k: v for k, v in os.environ.items() if k not in _NOT_ITS}
                | {"MALLOC_ARENA_MAX": "1"},
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(page)
        ours.setblocking(False)
        self._socket = ours
        self._frames = wire.Frames()
        self._answers = wire.Answers()
        self._heard: deque[wire.Answer] = deque()
        self._events: list[XidEvent] = []

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def call(self) -> Call:
        """The NVML call that it is in, or was in last."""
        return self._call.read()

    @property
    def ended(self) -> bool:
        """It is gone, and what it held with it."""
        return self._process.poll() is not None

    async def how_it_ended(self) -> str:
        """For a person, once it has closed its end."""
        if not await self._ends_within(GRACE):
            return "closed its end"
        code = self._process.returncode
        return f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"

    def ask(self, turn: int, order: Order | None) -> None:
        """Have the GPUs read. Raises EOFError when nobody listens."""
        self.number += 1
        indices, of = (order.indices, order.of) if order else (None, None)
        ask = wire.Ask(number=self.number, turn=turn, order=indices, of=of)
        try:
            self._socket.sendall(wire.encode(ask))  # some bytes, into an empty buffer
        except OSError as error:
            raise EOFError(str(error)) from error

    async def hear(self, seconds: float) -> wire.Answer | None:
        """Its next answer, None within *seconds*. Raises EOFError and WireError."""
        end = time.monotonic() + seconds
        while not self._heard:
            if not await self._readable(end - time.monotonic()):
                return None
            if not self._receive():
                raise EOFError
        return self._heard.popleft()

    def events(self) -> list[XidEvent]:
        """XIDs that it told since the last time, even if it is dead by now."""
        with suppress(EOFError, wire.WireError):
            while not self._socket.fileno() < 0 and self._receive(or_nothing=True):
                pass
        events, self._events = self._events, []
        return events

    def _receive(self, *, or_nothing: bool = False) -> bool:
        """Take in what has come; False at the end, or where *or_nothing* has."""
        try:
            data = self._socket.recv(2**18)
        except BlockingIOError:
            return not or_nothing
        except OSError as error:
            raise EOFError(str(error)) from error
        for answer in map(self._answers.decode, self._frames.feed(data)):
            if not isinstance(answer, wire.Event):
                self._heard.append(answer)
            elif len(self._events) < KEPT:
                self._events.append(answer.event)
        return bool(data)

    async def _readable(self, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def is_ready() -> None:
            if not ready.done():
                ready.set_result(None)

        loop.add_reader(self._socket, is_ready)
        try:
            # not wait_for, which can lose a cancellation (python/cpython#86296)
            done, _ = await asyncio.wait({ready}, timeout=max(0.0, seconds))
        finally:
            loop.remove_reader(self._socket)
        return bool(done)

    async def end(self) -> bool:
        """End it; False where even SIGKILL does not: then it is stuck in the kernel.

        May be called again, and by two at once.
        """
        for stop in (self._process.terminate, self._process.kill):
            if self.ended:
                break  # never a signal to a number that another process may have by now
            stop()
            await self._ends_within(GRACE)
        return self.ended

    async def _ends_within(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not self.ended and time.monotonic() < end:
            await asyncio.sleep(0.01)
        return self.ended

    def close(self) -> None:
        """Let go of it. A worker that was not ended ends by itself, as soon as it can."""
        with suppress(OSError):
            self._socket.close()
        self._call.close()
