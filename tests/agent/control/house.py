"""An agent that is only a control socket: real server, real sockets, handlers that record."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from farrier_agent import status
from farrier_agent.control import protocol
from farrier_agent.control.errors import RefusedError
from farrier_agent.control.listening import bind
from farrier_agent.control.peer import Asker
from farrier_agent.control.protocol import Final, Result
from farrier_agent.control.server import ControlServer, Tell

T = TypeVar("T")

SNAPSHOT = status.Status(
    host="gpu01",
    at=1.0,
    accelerator="cpu",
    agent=status.Agent(version="1", python="3.11", pid=1, started_at=0.5),
    ready=False,
    reasons=("no replica is ready",),
)


class Recorder:
    """Handlers whose drain takes until :attr:`drained` is set, and that keep who asked."""

    def __init__(self) -> None:
        self.askers: list[Asker] = []
        self.asked: list[protocol.Request] = []
        self.contents: list[bytes] = []
        self.snapshot = SNAPSHOT
        self.drained = asyncio.Event()
        self.waiting = 0
        self.cancelled = 0

    async def status(self, request: protocol.Status, asker: Asker, tell: Tell) -> Final:
        return protocol.Report(status=self.snapshot)

    async def drain(self, request: protocol.Drain, asker: Asker, tell: Tell) -> Final:
        self.askers.append(asker)
        self.asked.append(request)
        for name in request.replicas:
            await tell(protocol.Progress(replica=name, state="draining", in_flight=2))
        if request.wait:
            self.waiting += 1
            try:
                await self.drained.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            finally:
                self.waiting -= 1
        done = (Result(replica=name, state="drained", seconds=1.5) for name in request.replicas)
        return protocol.Done(results=tuple(done))

    async def stopping(self, request: protocol.Stopping, asker: Asker, tell: Tell) -> Final:
        return protocol.Done(results=(Result(replica=request.replica, state="drained"),))

    async def ready(self, request: protocol.Ready, asker: Asker, tell: Tell) -> Final:
        raise RefusedError("systemd stops engine-tiny.service", "systemctl status engine-tiny")

    async def restart(self, request: protocol.Restart, asker: Asker, tell: Tell) -> Final:
        raise KeyError("a defect")

    async def evidence(self, request: protocol.Evidence, asker: Asker, tell: Tell) -> Final:
        return protocol.Bundle(path="/x", size_bytes=7, missing=("stacks: no py-spy",))

    async def fingerprint(self, request: protocol.Fingerprint, asker: Asker, tell: Tell) -> Final:
        self.asked.append(request)
        return protocol.Fingerprinted(action=request.action, missing=("tiny: not measured",))

    async def journal(self, request: protocol.Journal, asker: Asker, tell: Tell) -> Final:
        number = 0
        while request.follow or number < request.lines:
            await tell(protocol.Entry(at=float(number), message=f"line {number} " + "x" * 4000))
            number += 1
        return protocol.Done()

    async def ack(self, request: protocol.Ack, asker: Asker, tell: Tell) -> Final:
        self.asked.append(request)
        return protocol.Told(lines=("acknowledged: gpu-lost of GPU-1",))

    async def nvml(self, request: protocol.Nvml, asker: Asker, tell: Tell) -> Final:
        self.asked.append(request)
        return protocol.Told(lines=(f"{request.action.removesuffix('e')}ed",))

    async def lease(self, request: protocol.Lease, asker: Asker, tell: Tell) -> Final:
        self.asked.append(request)
        return protocol.Leased(token=7, rollout="r-1", holder="alice@laptop", expires_in=60.0)

    async def act(self, request: protocol.Act, asker: Asker, tell: Tell) -> Final:
        self.asked.append(request)
        return protocol.Leased(token=7, rollout="r-1", holder="alice@laptop", acting=request.action)

    async def audit(self, request: protocol.Audit, asker: Asker, tell: Tell) -> Final:
        self.asked.append(request)
        line = protocol.AuditLine(at=1.0, by="root", verb="drain", outcome="done")
        return protocol.Audited(lines=(line,))

    async def ledger(
        self, request: protocol.Ledger, asker: Asker, tell: Tell, content: bytes
    ) -> Final:
        self.asked.append(request)
        self.contents.append(content)
        copy = protocol.LedgerCopy(id="r-1", size_bytes=2, at=1.0, content="{}")
        return protocol.Ledgers(ledgers=(copy,))


class House:
    """The server in a loop of its own thread, so that blocking clients can be tested against it."""

    def __init__(
        self, path: Path, handlers: Callable[[], Recorder], *, beat: float, patience: float
    ) -> None:
        self.path = path
        self._handlers = handlers
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.handlers = self.call(self._made())
        self.server = ControlServer(self.handlers, bind(path), beat=beat, patience=patience)
        self._serving = self.call(self._serve())

    async def _made(self) -> Recorder:
        return self._handlers()

    async def _serve(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.server.serve())

    async def _stop(self) -> None:
        self._serving.cancel()
        await asyncio.wait({self._serving}, timeout=10)

    def call(self, what: Awaitable[T]) -> T:
        async def run() -> T:
            return await what

        future: Future[T] = asyncio.run_coroutine_threadsafe(run(), self._loop)
        return future.result(10)

    def drained(self) -> None:
        self._loop.call_soon_threadsafe(self.handlers.drained.set)

    def close(self, *, wait: bool = True) -> None:
        """End the agent. Within one of its own callbacks there is no waiting for it."""
        if wait:
            self.call(self._stop())
        else:
            self._loop.call_soon_threadsafe(self._serving.cancel)

    def end(self) -> None:
        self.close()
        self.call(self._everybody_else())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _everybody_else(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=10)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(self.path))  # blocking: the queue of connections may be full
        connection.settimeout(10)
        return connection


@contextlib.contextmanager
def house(
    path: Path,
    handlers: Callable[[], Recorder] = Recorder,
    *,
    beat: float = 5.0,
    patience: float = 5.0,
) -> Iterator[House]:
    one = House(path, handlers, beat=beat, patience=patience)
    try:
        yield one
    finally:
        one.end()


def everything(connection: socket.socket) -> bytes:
    """All that comes until the other end closes."""
    heard = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(65536):
            heard += data
    return heard
