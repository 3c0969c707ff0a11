"""The agent's end of the control socket.

Bounded in connections, bytes and time: a client that says nothing, too much, or does not read what
it is told loses its connection and nobody else notices.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import suppress
from typing import Protocol

from farrier_agent import __version__
from farrier_agent.control import protocol
from farrier_agent.control.errors import ControlError, ProtocolError
from farrier_agent.control.listening import BACKLOG
from farrier_agent.control.peer import Asker, allowed, who
from farrier_agent.control.protocol import Failed, Final, News, Reply, Request

__all__ = ["MAX_RUNNING", "MAX_SILENT", "PATIENCE", "ControlServer", "Handlers", "Tell"]

log = logging.getLogger("farrier-agent")

MAX_SILENT = 64
"""Connections without a request yet; one more, and the oldest of them is closed."""
MAX_RUNNING = 64
"""Requests that are worked on at once."""
RESERVED = 32
"""More of them, which only ``stopping`` gets: nobody who waits keeps an ExecStop program out."""
PATIENCE = 5.0
"""Seconds that a request may take to arrive, and that a client may take to read a reply."""


class Tell(Protocol):
    """How a handler tells its asker something before the last word."""

    async def __call__(self, news: News, /) -> None:
        """Send *news*. Raises OSError when the asker is gone."""


class Handlers(Protocol):
    """What the agent does on request. Each returns the last word.

    A handler is cancelled when its asker goes away or does not read, and :class:`Tell` raises:
    what was begun for it (a drain, a restart) has to live elsewhere and goes on. ControlError, and
    what is below it, becomes :class:`~farrier_agent.control.protocol.Failed` with its code.
    """

    async def status(self, request: protocol.Status, asker: Asker, tell: Tell) -> Final:
        """What the agent knows."""

    async def drain(self, request: protocol.Drain, asker: Asker, tell: Tell) -> Final:
        """Drain replicas."""

    async def stopping(self, request: protocol.Stopping, asker: Asker, tell: Tell) -> Final:
        """Drain a replica whose unit systemd is stopping."""

    async def ready(self, request: protocol.Ready, asker: Asker, tell: Tell) -> Final:
        """Take drains back."""

    async def restart(self, request: protocol.Restart, asker: Asker, tell: Tell) -> Final:
        """Drain, restart, warm up."""

    async def evidence(self, request: protocol.Evidence, asker: Asker, tell: Tell) -> Final:
        """Collect evidence about a replica."""

    async def fingerprint(self, request: protocol.Fingerprint, asker: Asker, tell: Tell) -> Final:
        """Record what the host is made of, or compare with it."""

    async def journal(self, request: protocol.Journal, asker: Asker, tell: Tell) -> Final:
        """What the agent logged."""

    async def ack(self, request: protocol.Ack, asker: Asker, tell: Tell) -> Final:
        """Clear what is latched."""

    async def nvml(self, request: protocol.Nvml, asker: Asker, tell: Tell) -> Final:
        """Let go of the GPUs' driver, or take it up again."""

    async def lease(self, request: protocol.Lease, asker: Asker, tell: Tell) -> Final:
        """Take, renew, release or show the lease of a rollout."""

    async def act(self, request: protocol.Act, asker: Asker, tell: Tell) -> Final:
        """Let a rollout lay hands on the host."""

    async def audit(self, request: protocol.Audit, asker: Asker, tell: Tell) -> Final:
        """What was done to this host."""

    async def ledger(
        self, request: protocol.Ledger, asker: Asker, tell: Tell, content: bytes
    ) -> Final:
        """Keep a copy of a ledger (its *content*), or hand one out."""


class ControlServer:
    """Serves *handlers* on *listener* to root, the agent's own user and members of *group*.

    *beat* is seconds between signs of life, *patience* as :data:`PATIENCE`.
    """

    def __init__(
        self,
        handlers: Handlers,
        listener: socket.socket,
        *,
        group: int | None = None,
        beat: float = protocol.BEAT,
        patience: float = PATIENCE,
    ) -> None:
        self._handlers = handlers
        self._listener = listener
        self._group = group
        self._beat = beat
        self._patience = patience
        self._silent: dict[_Client, None] = {}  # by age: a dict keeps the order
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Serve until cancelled; then every connection is closed and every handler cancelled."""
        server = await asyncio.start_unix_server(
            self._connected,
            sock=self._listener,
            backlog=BACKLOG,
            limit=protocol.MAX_REQUEST,
            start_serving=False,
        )
        try:
            await server.start_serving()
            # not serve_forever(): since Python 3.12 it waits until the last client has left
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            pending = set(self._tasks)
            while pending:  # wait_for can lose a cancellation before Python 3.12
                for task in pending:
                    task.cancel()
                _, pending = await asyncio.wait(pending, timeout=0.1)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(reader, writer, self._patience)
        # The newest is let in, for who has something to ask says so at once.
        self._silent[client] = None
        if len(self._silent) > MAX_SILENT:
            oldest = next(iter(self._silent))
            del self._silent[oldest]
            oldest.drop()
        task = asyncio.get_running_loop().create_task(self._attend(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attend(self, client: _Client) -> None:
        try:
            await self._one_request(client)
        except (OSError, EOFError, asyncio.TimeoutError) as error:
            log.debug("control socket: a client is gone: %r", error)
        except Exception:  # one connection must not take the others with it
            log.exception("control socket: a defect in the agent")
        finally:
            self._silent.pop(client, None)
            client.drop()

    async def _one_request(self, client: _Client) -> None:
        asker = client.asker()
        if not allowed(asker, own_uid=os.geteuid(), group=self._group):
            log.warning("control socket: refused %s", asker)
            final: Final = Failed(code=3, error="not allowed: root and the socket's group are")
        else:
            try:
                request = await client.request()
                content = await client.content(request)
            except ProtocolError as error:
                final = _failed(error)
            else:
                self._silent.pop(client, None)
                final = await self._work(client, request, asker, content)
        await client.finish(final)

    async def _work(self, client: _Client, request: Request, asker: Asker, content: bytes) -> Final:
        room = MAX_RUNNING + (RESERVED if isinstance(request, protocol.Stopping) else 0)
        if self._running >= room:
            return Failed(code=1, error=f"busy with {self._running} requests", next="try again")
        self._running += 1
        try:
            await client.tell(protocol.Accepted(agent=__version__))
            return await self._handle(client, request, asker, content)
        finally:
            self._running -= 1

    async def _handle(
        self, client: _Client, request: Request, asker: Asker, content: bytes
    ) -> Final:
        loop = asyncio.get_running_loop()
        work = loop.create_task(self._dispatch(request, asker, client.tell, content))
        try:
            while not work.done():
                # The beat is also how a client that went away is noticed. Its end of file is no
                # sign: who pipes a request in has closed that half.
                await asyncio.wait({work}, timeout=self._beat)
                if not work.done() and loop.time() - client.told >= self._beat:
                    await client.tell(protocol.Beat())
            return work.result()
        except ControlError as error:
            return _failed(error)
        except OSError:
            if not client.gone:
                log.exception("control socket: %s failed", type(request).__name__)
                return _defect()
            raise
        except Exception:
            log.exception("control socket: %s failed", type(request).__name__)
            return _defect()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _dispatch(  # noqa: PLR0912 - one a verb
        self, request: Request, asker: Asker, tell: Tell, content: bytes
    ) -> Final:
        on = self._handlers
        match request:
            case protocol.Status():
                work = on.status(request, asker, tell)
            case protocol.Drain():
                work = on.drain(request, asker, tell)
            case protocol.Stopping():
                work = on.stopping(request, asker, tell)
            case protocol.Ready():
                work = on.ready(request, asker, tell)
            case protocol.Restart():
                work = on.restart(request, asker, tell)
            case protocol.Evidence():
                work = on.evidence(request, asker, tell)
            case protocol.Fingerprint():
                work = on.fingerprint(request, asker, tell)
            case protocol.Journal():
                work = on.journal(request, asker, tell)
            case protocol.Ack():
                work = on.ack(request, asker, tell)
            case protocol.Nvml():
                work = on.nvml(request, asker, tell)
            case protocol.Lease():
                work = on.lease(request, asker, tell)
            case protocol.Act():
                work = on.act(request, asker, tell)
            case protocol.Audit():
                work = on.audit(request, asker, tell)
            case protocol.Ledger():
                work = on.ledger(request, asker, tell, content)
        return await work


def _failed(error: ControlError) -> Failed:
    return Failed(code=error.code, error=str(error), next=error.next)


def _defect() -> Failed:
    return Failed(
        code=1,
        error="a defect in the agent; its journal says more",
        next="journalctl -u farrier-agent",
    )


class _Client:
    """One connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._patience = patience
        self._one_at_a_time = asyncio.Lock()  # a beat and a handler's news
        self.told = 0.0
        """When it was told something last, by the loop's clock."""
        self.gone = False
        """It cannot be told anything any more."""

    def asker(self) -> Asker:
        """Who it is. Raises OSError."""
        connection: socket.socket = self._writer.get_extra_info("socket")
        return who(connection)

    async def request(self) -> Request:
        """What it asks for. Raises ProtocolError, EOFError, OSError or TimeoutError."""
        try:
            line = await asyncio.wait_for(self._reader.readuntil(b"\n"), self._patience)
        except asyncio.LimitOverrunError:
            raise ProtocolError(
                f"the request is longer than {protocol.MAX_REQUEST} bytes"
            ) from None
        return protocol.decode_request(line)

    async def content(self, request: Request) -> bytes:
        """What follows *request*. Raises EOFError, OSError or TimeoutError."""
        if not isinstance(request, protocol.Ledger) or not request.size:
            return b""
        return await asyncio.wait_for(self._reader.readexactly(request.size), self._patience)

    async def tell(self, reply: Reply) -> None:
        """Send *reply*. Raises OSError when the client is gone or does not read."""
        async with self._one_at_a_time:
            try:
                self._writer.write(protocol.encode(reply))
                await asyncio.wait_for(self._writer.drain(), self._patience)
            except (OSError, asyncio.TimeoutError) as error:
                self.gone = True
                self.drop()
                raise ConnectionAbortedError("the asker is gone") from error
            self.told = asyncio.get_running_loop().time()

    async def finish(self, final: Final) -> None:
        """Send the last word and close. Raises OSError or TimeoutError."""
        await self.tell(final)
        self._writer.close()
        with suppress(OSError):
            await asyncio.wait_for(self._writer.wait_closed(), self._patience)

    def drop(self) -> None:
        """Close the connection at once."""
        self._writer.transport.abort()
