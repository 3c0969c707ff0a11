"""A client's connection in HTTP/2, shared by several requests at once.

h2 is the grammar, the connection is ours, for the reasons of :mod:`.http1`. A request is sent again
in one case only, and by its caller, who counts it: the server said that it did not touch it (RFC
9113, 8.7: a GOAWAY that names an earlier stream as the last, or REFUSED_STREAM).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import ProtocolError

from farrier.load.answer import Answer
from farrier.load.goaway import Goaway, NoFrameError
from farrier.load.sending import LEFT, TICK, Sending, UntouchedError, ended

__all__ = ["Http2"]

AT_ONCE = 25
"""Requests that share a connection."""
WINDOW = 1 << 24
"""Bytes that the connection may hold: one slow reader must not keep the others waiting."""
REFUSED = "the server did not touch it (REFUSED_STREAM)"
GONE = "the server did not touch it (GOAWAY)"


class _Stream:
    """One request under way."""

    def __init__(self, sending: Sending, answer: Answer) -> None:
        self.sending, self.answer = sending, answer
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.held = bytearray()
        self.whole = False

    def end(self, broken: str = "") -> None:
        if not self.over.done():
            self.answer.end(broken)
            self.over.set_result(None)

    def untouched(self, why: str) -> None:
        if not self.over.done():
            self.over.set_exception(UntouchedError(why))


class Http2(asyncio.Protocol):
    """One connection. ``served`` is how many requests were sent on it before."""

    def __init__(self) -> None:
        self.served = 0
        self.closed = False
        self.leaving = False
        """The server takes no new request on it."""
        self._transport: asyncio.Transport | None = None
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._streams: dict[int, _Stream] = {}
        self._writable = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._goaway = Goaway()

    # -- for clients -------------------------------------------------------------------------

    async def usable(self) -> bool:
        """Whether it may carry another request, as far as can be seen from here."""
        await asyncio.sleep(0)
        return not (self.closed or self.leaving) and len(self._streams) < self._at_once()

    def negotiated(self) -> str | None:
        """The protocol that TLS agreed on."""
        tls = self._transport and self._transport.get_extra_info("ssl_object")
        return tls.selected_alpn_protocol() if tls else None

    def _at_once(self) -> int:
        return min(AT_ONCE, self._h2.remote_settings.max_concurrent_streams)

    async def ask(self, sending: Sending, answer: Answer, *, keep: bool) -> None:
        """Send one request and return when its *answer* ended, in whatever way.

        *keep*: the connection stays for the next one. Raises UntouchedError where the server says
        that it did nothing of it.
        """
        if self.closed or self.leaving:
            raise UntouchedError("the connection was closed before the request was sent")
        number = self._h2.get_next_available_stream_id()
        stream = self._streams[number] = _Stream(sending, answer)
        self.served += 1
        self._head(number, sending)
        tasks = [asyncio.create_task(self._write(number, sending))]
        if sending.slow_bytes:
            tasks.append(asyncio.create_task(self._read_slowly(number, stream)))
        try:
            await stream.over
        finally:
            if not (stream.whole and tasks[0].done()):
                self._reset(number)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            del self._streams[number]
            if not self._streams and (self.leaving or not keep):
                self.close()

    def give_up(self, answer: Answer, why: str) -> None:
        """The client waits no longer for *answer*: it is broken."""
        for stream in self._streams.values():
            if stream.answer is answer:
                stream.end(why)

    def close(self) -> None:
        """Let go of the connection."""
        self.closed = True
        if self._transport:
            self._transport.close()

    # -- sending -----------------------------------------------------------------------------

    def _head(self, number: int, sending: Sending) -> None:
        assert self._transport  # noqa: S101 - asyncio made the connection before anybody asks
        tls = self._transport.get_extra_info("ssl_object") is not None
        head = [
            (":method", sending.method),
            (":scheme", "https" if tls else "http"),
            (":authority", sending.authority),
            (":path", sending.path),
            *((name.lower(), value) for name, value in sending.headers),
        ]
        if sending.body and not sending.chunked:
            head.append(("content-length", str(len(sending.body))))
        self._h2.send_headers(number, head, end_stream=not sending.body)
        self._flush()

    async def _write(self, number: int, sending: Sending) -> None:
        with suppress(ProtocolError):  # the stream ended meanwhile: its answer knows why
            async for piece in sending.pieces():
                rest = piece
                while rest:
                    room = await self._allowed(number)
                    part, rest = rest[:room], rest[room:]
                    self._h2.send_data(number, part)
                    self._flush()
                    self._streams[number].answer.last_byte = time.monotonic()
                    await self._writable.wait()
            if sending.body:
                self._h2.end_stream(number)
                self._flush()

    async def _allowed(self, number: int) -> int:
        """How many bytes may be sent now; waits until it is any."""
        while self._h2.local_flow_control_window(number) <= 0:
            self._waiting.append(more := asyncio.get_running_loop().create_future())
            await more
        return min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)

    def _reset(self, number: int) -> None:
        """Tell the server that nobody waits, where the stream is not over for both sides."""
        with suppress(ProtocolError):
            self._h2.reset_stream(number, ErrorCodes.CANCEL)
        self._flush()

    def _flush(self) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(self._h2.data_to_send())

    # -- what asyncio calls ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what HTTP/2 begins with."""
        self._transport = cast(asyncio.Transport, transport)
        self._writable.set()
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW)
        self._flush()

    def pause_writing(self) -> None:
        """The kernel takes no more for now."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It takes more again."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Frames came."""
        try:
            for event in self._h2.receive_data(self._goaway.without(data)):
                self._take(event)
        except (ProtocolError, NoFrameError) as error:
            for stream in self._streams.values():
                stream.answer.garbage = stream.answer.garbage or f"not HTTP/2: {error}"
                stream.end("not HTTP/2")
            self.close()
        if self._goaway.last is not None:
            self._leave(self._goaway.last)
        self._flush()
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """It is over, and what was under way is broken."""
        self.closed = True
        self._writable.set()
        for stream in self._streams.values():
            if stream.held:
                stream.answer.data(bytes(stream.held))
            stream.end("" if stream.whole else ended(error, stream.answer))

    # -- receiving ---------------------------------------------------------------------------

    def _leave(self, last: int) -> None:
        """The server finishes the streams up to *last*, and takes no new one."""
        self.leaving = True
        for number, stream in self._streams.items():
            if number > last:
                stream.untouched(GONE)
        if not self._streams:
            self.close()

    def _take(self, event: Event) -> None:
        one = self._streams.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, DataReceived) and (one is None or not one.sending.slow_bytes):
            self._acknowledge(event.flow_controlled_length or 0, event.stream_id or 0)
        if one is not None and not one.over.done():
            self._tell(one, event)

    def _tell(self, stream: _Stream, event: Event) -> None:
        if isinstance(event, ResponseReceived):
            stream.answer.began()
            head = {str(name): str(value) for name, value in event.headers or ()}
            stream.answer.head(int(head.pop(":status")), head.items())
        elif isinstance(event, DataReceived):
            self._data(stream, bytes(event.data or b""))
        elif isinstance(event, StreamEnded):
            stream.whole = True
            if not stream.held:
                stream.end()
        elif isinstance(event, StreamReset):
            if event.error_code == ErrorCodes.REFUSED_STREAM and not stream.answer.first_byte:
                stream.untouched(REFUSED)
            else:
                stream.end(f"the server reset the stream ({event.error_code})")

    def _data(self, stream: _Stream, data: bytes) -> None:
        stream.answer.began()
        if stream.sending.slow_bytes:
            stream.held += data
            return
        stream.answer.data(data)
        leave = stream.sending.leave_after
        if leave and stream.answer.events >= leave:
            stream.end(LEFT)

    async def _read_slowly(self, number: int, stream: _Stream) -> None:
        """Take so many bytes a second, and let the server send as many more."""
        step = max(1, int(stream.sending.slow_bytes * TICK))
        while not stream.over.done():
            await asyncio.sleep(TICK)
            piece = bytes(stream.held[:step])
            del stream.held[:step]
            if piece:
                stream.answer.began()
                stream.answer.data(piece)
                self._acknowledge(len(piece), number)
                self._flush()
            if stream.whole and not stream.held:
                stream.end()

    def _acknowledge(self, size: int, number: int) -> None:
        if size and number:
            with suppress(ProtocolError):  # of a stream that is over there is nothing to tell
                self._h2.acknowledge_received_data(size, number)
