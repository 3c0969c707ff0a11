"""A client's connection in HTTP/1.1: one request at a time, none of them ever sent twice.

httptools is the grammar (llhttp, as of Node.js), the connection is ours, because a ledger rests on
what libraries for everyday hide: whether a byte of an answer came before the connection was closed,
whether the connection had served before, and the early answer to a body that is still being sent.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from contextlib import suppress
from typing import cast

import httptools

from farrier.load.answer import Answer
from farrier.load.sending import LEFT, TICK, Sending, ended

__all__ = ["Http1"]

CHUNKED_END = b"0\r\n\r\n"


class Http1(asyncio.Protocol):
    """One connection. ``served`` is how many requests were sent on it before."""

    def __init__(self) -> None:
        self.served = 0
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None
        self._over: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._headers: list[tuple[str, str]] = []
        self._sending: Sending | None = None
        self._sent = self._kept = False
        self._held = bytearray()

    # -- for clients -------------------------------------------------------------------------

    async def usable(self) -> bool:
        """Whether it may carry another request: nobody closed it, as far as can be seen from here.

        What every good client looks at before it uses a kept connection again. The server may
        still close it while the request is under way.
        """
        for _ in range(3):
            if self.closed or self._transport is None or self._transport.is_closing():
                return False
            sock = self._transport.get_extra_info("socket")
            if sock is None or not _readable(sock):
                return True
            await asyncio.sleep(0)  # its end, or a session ticket: the loop reads it
        return False

    async def ask(self, sending: Sending, answer: Answer, *, keep: bool) -> None:
        """Send one request and return when its *answer* ended, in whatever way.

        *keep*: the connection stays for the next one, if the server lets it.
        """
        self._answer, self._sending, self._sent = answer, sending, False
        self._kept = False
        self._over = asyncio.get_running_loop().create_future()
        self._headers = []
        if self.closed:  # by the server, between its accept and now
            self._end(ended(None, answer))
        reading = (
            asyncio.create_task(self._read_slowly(sending.slow_bytes))
            if sending.slow_bytes
            else None
        )
        writing = asyncio.create_task(self._write(sending))
        try:
            await self._over
        finally:
            for task in (writing, reading):
                if task and not task.done():
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
            self.served += 1
            if not (keep and self._sent and answer.whole and self._kept and not self._held):
                self.close()
            self._answer = self._over = None

    def give_up(self, answer: Answer, why: str) -> None:
        """The client waits no longer for *answer*: it is broken."""
        if answer is self._answer:
            self._end(why)
            self.close()

    def close(self) -> None:
        """Let go of the connection at once."""
        self.closed = True
        if self._transport:
            self._transport.abort() if self._answer else self._transport.close()

    # -- sending -----------------------------------------------------------------------------

    async def _write(self, sending: Sending) -> None:
        lines = [f"{sending.method} {sending.path} HTTP/1.1", f"Host: {sending.authority}"]
        lines += [f"{name}: {value}" for name, value in sending.headers]
        if sending.chunked:
            lines.append("Transfer-Encoding: chunked")
        elif sending.method != "GET":
            lines.append(f"Content-Length: {len(sending.body)}")
        head = "\r\n".join([*lines, "", ""]).encode()
        async for piece in sending.pieces():
            data = b"%x\r\n%s\r\n" % (len(piece), piece) if sending.chunked else piece
            if not self._put(head + data):
                return
            head = b""
            if self._answer:
                self._answer.last_byte = time.monotonic()
            await self._writable.wait()
        if not sending.chunked or self._put(CHUNKED_END):
            self._sent = True

    def _put(self, data: bytes) -> bool:
        if self.closed or self._transport is None or self._transport.is_closing():
            return False
        self._transport.write(data)
        return True

    # -- what asyncio calls ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start."""
        self._transport = cast(asyncio.Transport, transport)
        self._writable.set()

    def pause_writing(self) -> None:
        """The kernel takes no more for now."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It takes more again."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Bytes came: for the request that runs, or for nobody."""
        if self._answer is None:
            self.close()  # nobody asked: such as a 408 before the server closes
            return
        self._answer.began()
        if self._sending and self._sending.slow_bytes:
            self._held += data
            if self._transport:
                self._transport.pause_reading()
            return
        self._feed(data)

    def eof_received(self) -> bool:
        """The server says no more: the connection is closed."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """It is over; an answer that was not whole is broken."""
        self.closed = True
        self._writable.set()
        if self._held:
            self._feed(bytes(self._held))
            self._held.clear()
        self._end(ended(error, self._answer), by_close=error is None)

    # -- receiving ---------------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self._answer:
                self._answer.garbage = self._answer.garbage or f"not HTTP: {error}"
            self._end("not HTTP")
            self.close()

    async def _read_slowly(self, slow_bytes: int) -> None:
        """Give the parser so many bytes a second, and the kernel no room meanwhile."""
        step = max(1, int(slow_bytes * TICK))
        while True:
            await asyncio.sleep(TICK)
            piece = bytes(self._held[:step])
            del self._held[:step]
            if self._answer:
                self._answer.began()
            self._feed(piece)
            if not self._held and self._transport and not self.closed:
                self._transport.resume_reading()

    def _end(self, broken: str, *, by_close: bool = False) -> None:
        if self._answer is None or self._over is None or self._over.done():
            return
        names = self._answer.headers
        unmeasured = "content-length" not in names and "transfer-encoding" not in names
        if by_close and self._answer.status >= 200 and unmeasured:
            broken = ""  # RFC 9112 6.3: such an answer ends with its connection
        self._answer.end(broken)
        self._over.set_result(None)

    # -- what the parser calls ---------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        status, answer = self._parser.get_status_code(), self._asked()
        if answer and status >= 200:
            answer.head(status, self._headers)
        self._headers = []

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        answer = self._asked()
        if answer is None or self._sending is None:
            return
        answer.data(data)
        if self._sending.leave_after and answer.events >= self._sending.leave_after:
            self.give_up(answer, LEFT)

    def on_message_complete(self) -> None:
        """HTTP's own end of the answer."""
        answer = self._asked()
        if answer and answer.status >= 200:
            self._kept = self._parser.should_keep_alive()
            self._end("")

    def _asked(self) -> Answer | None:
        """The answer that is waited for; one that nobody asked for ends the connection."""
        if self._answer and self._over and not self._over.done():
            return self._answer
        self._kept = False
        return None


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
