"""One connection: TLS where that is wanted, requests one after another, a limit on every wait.

A client has to finish its handshake, to say its request and to take its answer within a time each;
the time runs from the first moment of each, so a client that goes on slowly gains nothing.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from http import HTTPStatus
from urllib.parse import unquote

import h11

from farrier_agent.web.crowd import Crowd
from farrier_agent.web.inforce import Rules
from farrier_agent.web.messages import Answer, Request, json_answer
from farrier_agent.web.reception import Reception
from farrier_agent.web.tls import Tls
from farrier_agent.web.wire import NotTlsError, Wire

__all__ = ["HANDSHAKE", "PATIENCE", "Connection"]

log = logging.getLogger("farrier-agent")

HANDSHAKE = 5.0
"""Seconds for a TLS handshake, from the connection's first moment."""
PATIENCE = 10.0
"""Seconds for a request, from its first byte to its last; the first one's from the connection."""
IDLE = 120.0
"""Seconds between an answer and the next request: longer than between two scrapes."""
TAKING = 30.0
"""Seconds for a client to take an answer."""
PARTING = 2.0
"""Seconds for a client to hear the last answer, and to stop talking after it."""
MAX_HEAD = 16 * 1024
PIECE = 64 * 1024
"""Bytes that are encrypted and handed to the kernel at a time."""

FAILURE = json_answer(500, {"error": "a defect; next: journalctl -u farrier-agent"})
NOT_HTTP = json_answer(400, {"error": "not a request of HTTP/1.1"})
NOT_TLS = json_answer(400, {"error": "this endpoint speaks TLS: ask https://"})


class Connection(asyncio.Protocol):
    """One client of *reception*, one of the *crowd*."""

    _transport: asyncio.Transport
    _wire: Wire

    def __init__(self, reception: Reception, crowd: Crowd) -> None:
        self._loop = asyncio.get_running_loop()
        self._reception = reception
        self._crowd = crowd
        self._tls: Tls | None = None
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._timer: asyncio.TimerHandle | None = None
        self._later: asyncio.Task[Answer] | None = None
        self._rest = memoryview(b"")
        self._peer = self._method = ""
        self._answering = self._blocked = self._idle = False
        self._keep = True
        self._over = False
        self.welcome = False
        self.since = self._loop.time()

    @property
    def silent(self) -> bool:
        """No answer of ours is under way."""
        return not self._answering

    def abort(self) -> None:
        """End it now."""
        self._over = True
        self._transport.abort()

    # -- what asyncio tells ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there: the clock runs."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream socket
        self._transport = transport
        transport.set_write_buffer_limits(high=PIECE)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else ""
        self._crowd.join(self)
        rules = self._reception.rules()
        self._tls = rules.tls if rules else None
        self._wire = Wire(transport, self._tls)
        self._within(HANDSHAKE if self._tls else PATIENCE)

    def connection_lost(self, _error: Exception | None) -> None:
        """It is gone."""
        self._over = True
        self._crowd.leave(self)
        self._within(None)
        if self._later is not None:
            self._later.cancel()

    def data_received(self, data: bytes) -> None:
        """Go on with what the client said."""
        if self._over:
            return
        try:
            said = self._heard(data)
        except NotTlsError:
            self._keep = False
            self._answer(NOT_TLS)
        except ssl.SSLError:
            self._part()
        else:
            if said:
                if self._idle:
                    self._idle = False
                    self._within(PATIENCE)
                self._http.receive_data(said)
                self._go_on()

    def _heard(self, data: bytes) -> bytes:
        """What *data* says, without what only the handshake says."""
        shaking = self._wire.shaking
        said = self._wire.hear(data)
        if shaking and not self._wire.shaking:
            if not self._wire.admitted:
                self._part()
                return b""
            self._within(PATIENCE)
        return said

    def eof_received(self) -> bool:
        """Who says no more may still read the answer that is under way."""
        self._keep = False
        return self._answering

    def pause_writing(self) -> None:
        """The client does not take what was said."""
        self._blocked = True

    def resume_writing(self) -> None:
        """It took it."""
        self._blocked = False
        self._write()

    # -- requests ------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Answer the next request, if it is there."""
        if self._answering or self._over:
            return
        try:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._wait()
            elif isinstance(event, h11.Request) and event.http_version in {b"1.0", b"1.1"}:
                # a body is not waited for: nothing here takes one
                self._keep = isinstance(self._http.next_event(), h11.EndOfMessage)
                self._ask(_plain(event, self._peer))
            elif isinstance(event, h11.Request):
                self._refuse()
            else:
                self._part()
        except h11.RemoteProtocolError:
            self._refuse()

    def _wait(self) -> None:
        """For more of a request, or for the next one."""
        if self._idle and self._http.trailing_data[0]:
            self._idle = False
            self._within(PATIENCE)
        self._transport.resume_reading()

    def _ask(self, request: Request) -> None:
        self._answering = True
        self._method = request.method
        self._within(None)
        self._transport.pause_reading()
        rules = self._reception.rules()
        if not self._fits(rules):
            self.abort()
            return
        answer = FAILURE
        try:
            found = self._reception.receive(request, rules)
        except Exception:
            log.exception("a defect: %s %s", request.method, request.path)
        else:
            if not isinstance(found, Answer):
                self._later = self._loop.create_task(found)
                self._later.add_done_callback(self._answer_later)
                return
            answer = found
        self._answer(answer)

    def _fits(self, rules: Rules | None) -> bool:
        """Whether this connection may be answered on still, whose rules may be older.

        Nobody is told in the clear what is for TLS now, nor anybody whose certificate was let in
        by another authority or another list of names.
        """
        wanted = rules.tls if rules else None
        if wanted is self._tls:
            return True
        self._keep = False
        return wanted is None or (self._tls is not None and not wanted.asks_clients)

    def _answer_later(self, task: asyncio.Task[Answer]) -> None:
        self._later = None
        if task.cancelled() or self._over:
            return
        error = task.exception()
        if error is not None:
            log.error("a defect", exc_info=error)
        self._answer(FAILURE if error else task.result())

    def _refuse(self) -> None:
        """Answer what is no HTTP, where an answer can still be told from another."""
        self._keep = False
        if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            self._answer(NOT_HTTP)
        else:
            self._part()

    # -- answers -------------------------------------------------------------------------------

    def _answer(self, answer: Answer) -> None:
        self._answering = True
        self.welcome = self.welcome or answer.code == 200
        headers = [
            ("content-type", answer.kind),
            ("content-length", str(len(answer.body))),
            *answer.headers,
            *(() if self._keep else (("connection", "close"),)),
        ]
        reason = HTTPStatus(answer.code).phrase.encode()
        head = h11.Response(status_code=answer.code, headers=headers, reason=reason)
        said = self._http.send(head) or b""
        if self._method != "HEAD":
            self._http.send(h11.Data(data=answer.body))
            said += answer.body
        self._http.send(h11.EndOfMessage())
        self._rest = memoryview(said)
        self._within(TAKING)
        self._write()

    def _write(self) -> None:
        """Hand over what the client takes; the rest when it took that."""
        try:
            while len(self._rest) and not (self._blocked or self._over):
                piece, self._rest = self._rest[:PIECE], self._rest[PIECE:]
                self._wire.say(piece)
        except ssl.SSLError:
            self.abort()  # the client ended TLS in the midst of it
        if self._answering and self._later is None and not (self._blocked or self._over):
            self._answered()

    def _answered(self) -> None:
        self._answering = False
        self._rest = memoryview(b"")
        self.since = self._loop.time()
        if not self._keep or self._http.our_state is not h11.DONE:
            self._part()
            return
        self._http.start_next_cycle()
        self._idle = True
        self._within(IDLE)
        # one answer at a time, though many were asked for: others wait too
        self._loop.call_soon(self._go_on)

    def _part(self) -> None:
        """The last was said. What the client still says is read: a reset would eat the answer."""
        if self._over:
            return
        self._over = True
        self._within(PARTING)
        self._wire.end()
        self._transport.resume_reading()

    def _within(self, seconds: float | None) -> None:
        """End the connection after *seconds*, unless something else is said before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._loop.call_later(seconds, self.abort)


def _plain(asked: h11.Request, peer: str) -> Request:
    headers: dict[str, str] = {}
    for name, value in asked.headers:
        key, said = name.decode("ascii"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {said}" if key in headers else said
    path, _, query = asked.target.decode("ascii").partition("?")
    method = asked.method.decode("ascii")
    return Request(method, unquote(path, errors="replace"), query, headers, peer)
