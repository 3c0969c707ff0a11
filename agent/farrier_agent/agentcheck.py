"""The agent-check port: a gateway sends a replica's name, the agent says whether it takes requests.

HAProxy (``agent-check``, ``agent-send "NAME\\n"``) opens a connection for each question. There are
two answers, both complete, for a bare ``ready`` does not undo an earlier ``down`` or ``0%``
(measured with HAProxy 2.6):

- ``up ready 100%``: new requests may be sent to this replica;
- ``up drain``: none; what runs goes on. That is also the answer for a name that is no replica of
  this host. Never ``down``: it says *failed* of what only is not here, and with
  ``on-marked-down shutdown-sessions`` it cuts streams.

Agents ask one another ``serves NAME``: ``yes`` where the replica takes requests and nothing is held
against it for which it may be drained, else ``no``.

The other hosts of a replica that spans several ask ``run NAME`` of its head: ``running ID``, or
``ended`` (:mod:`.spanning.runs`).

What is not a name (other bytes, too many of them, none in time) is closed without an answer. Then
HAProxy leaves the server as it is (2.6: still ``UP``, its agent check ``L7RSP`` or ``L7TOUT``): a
question that was not understood changes nothing. The host's gate decides anyway.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable

from farrier_agent.spanning.runs import RUN

__all__ = ["MAX_CONNECTIONS", "MAX_QUESTION", "PATIENCE", "SERVES", "YES", "AgentCheck", "name_in"]

log = logging.getLogger("farrier-agent")

MAX_CONNECTIONS = 128
"""Connections without a question yet; one more, and the oldest of them is closed."""
MAX_QUESTION = 73
"""Bytes: a name of 63, the word before it, and the end of its line."""
PATIENCE = 2.0
"""Seconds that a question may take to arrive."""

READY = b"up ready 100%\n"
DRAIN = b"up drain\n"
SERVES = b"serves "
YES = b"yes\n"
NO = b"no\n"

_NAME = re.compile(rb"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def name_in(question: bytes) -> str | None:
    """The name in a whole line (without its newline); None when it is not a replica's name."""
    line = question.removesuffix(b"\r")
    return line.decode("ascii") if _NAME.fullmatch(line) else None


class AgentCheck:
    """Answers on *listener* for as long as :meth:`serve` runs.

    *takes_requests* says of a replica's name whether new requests may be sent to it: False also for
    a name that is none. It is called in the event loop for each question, so it only looks up.
    *serves* says whether another host may rely on it; None: as *takes_requests*. *run* is the
    answer about its unit's run; None: none.
    """

    def __init__(
        self,
        takes_requests: Callable[[str], bool],
        listener: socket.socket,
        *,
        serves: Callable[[str], bool] | None = None,
        run: Callable[[str], bytes | None] = lambda _name: None,
    ) -> None:
        self._takes_requests = takes_requests
        self._serves = serves or takes_requests
        self._run = run
        self._listener = listener
        self._silent: dict[_Question, None] = {}  # by age: a dict keeps the order
        self.answered = 0
        """Questions that were answered."""
        self.refused = 0
        """Connections that were closed without an answer."""

    async def serve(self) -> None:
        """Serve until cancelled; then nothing of it is left open."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: _Question(self),
            sock=self._listener,
            backlog=MAX_CONNECTIONS,
            start_serving=False,
        )
        try:
            await server.start_serving()
            # not serve_forever(): since Python 3.12 it waits until the last client has left
            await loop.create_future()
        finally:
            server.close()
            for question in list(self._silent):
                question.drop()

    def answer(self, question: bytes) -> bytes | None:
        """The answer to a whole line; None for one that gets none."""
        if question.startswith(RUN):
            name = name_in(question[len(RUN) :])
            return None if name is None else self._run(name)
        name = name_in(question.removeprefix(SERVES))
        if name is None:
            return None
        if question.startswith(SERVES):
            return YES if self._serves(name) else NO
        return READY if self._takes_requests(name) else DRAIN

    def _came(self, question: _Question) -> None:
        # The newest is let in: a gateway asks at once, so the oldest is the one that has nothing
        # to ask. Turning away the newest would let silent clients keep every gateway out.
        self._silent[question] = None
        if len(self._silent) > MAX_CONNECTIONS:
            next(iter(self._silent)).drop()

    def _left(self, question: _Question, *, answered: bool) -> None:
        if question in self._silent:
            del self._silent[question]
            if answered:
                self.answered += 1
            else:
                self.refused += 1


class _Question(asyncio.Protocol):
    """One connection."""

    def __init__(self, check: AgentCheck) -> None:
        self._check = check
        self._heard = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - TCP has no other
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self.drop)
        self._check._came(self)

    def data_received(self, data: bytes) -> None:
        self._heard += data[: MAX_QUESTION + 1]
        line, newline, _ = self._heard.partition(b"\n")
        if newline:
            self._reply(self._answer(line))
        elif len(self._heard) > MAX_QUESTION:
            self.drop()

    def _answer(self, line: bytes) -> bytes | None:
        try:
            return self._check.answer(line)
        except Exception:  # a defect of ours must not become a gateway's timeout
            log.exception("agent-check: no answer about %r", line)
            return None

    def _reply(self, answer: bytes | None) -> None:
        if answer is None:
            self.drop()
            return
        self._end(answered=True)
        if self._transport:
            self._transport.write(answer)  # a few bytes: they fit into the socket's buffer
            self._transport.close()

    def drop(self) -> None:
        """Close the connection without an answer."""
        self._end(answered=False)
        if self._transport:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._end(answered=False)

    def _end(self, *, answered: bool) -> None:
        if self._timer:
            self._timer.cancel()
        self._check._left(self, answered=answered)
