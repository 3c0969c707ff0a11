"""The agent's HTTP endpoint: pages that need nothing but the last snapshot.

``/metrics``, ``/status`` and ``/readyz`` come from it; ``/livez`` says that the
process runs. There is nothing to change here: only GET and HEAD, and no body is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import msgspec
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from farrier_agent import metrics, status

__all__ = ["Endpoint", "ListenError", "Pages", "bind"]

JSON = "application/json"
MAX_SILENT = 64
"""Connections without a whole request; one more, and the oldest of them is closed."""
MAX_CONNECTIONS = 256
"""All of them, those too whose clients do not read; one more, and the oldest is closed."""
MAX_HEAD = 16 * 1024
PATIENCE = 10
"""Seconds that a connection may take for its next request, from its first byte to its last."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True)
class Page:
    """One answer."""

    code: int
    kind: str
    body: bytes
    allow: str | None = None


def _json(code: int, value: object, allow: str | None = None) -> Page:
    return Page(code, JSON, msgspec.json.encode(value) + b"\n", allow)


class Pages:
    """The answers by path. :meth:`show` replaces those that come from a snapshot.

    A snapshot comes with every change of anything, a scrape every 15 s: so a page is made when it
    is asked for, once for a snapshot.
    """

    def __init__(self) -> None:
        self._pages = {"/livez": _json(200, {"alive": True})}
        self._made: dict[str, Callable[[], Page]] = {}

    @property
    def shown(self) -> bool:
        """A snapshot was shown."""
        return bool(self._made)

    def show(self, snapshot: status.Status) -> None:
        """From now on make every page from *snapshot*."""
        readiness = {"ready": snapshot.ready, "reasons": snapshot.reasons}
        self._made = {
            "/metrics": lambda: Page(200, metrics.CONTENT_TYPE, metrics.render(snapshot)),
            "/readyz": lambda: _json(200 if snapshot.ready else 503, readiness),
            "/status": lambda: Page(200, JSON, status.dumps(snapshot) + b"\n"),
        }
        for path in self._made:
            self._pages.pop(path, None)

    def answer(self, method: str, path: str) -> Page:
        """The answer to *method* on *path*."""
        if path not in self._pages and path in self._made:
            self._pages[path] = self._made[path]()
        page = self._pages.get(path)
        if page is None:
            paths = sorted({*self._pages, *self._made})
            return _json(404, {"error": f"no such path: {path}", "paths": paths})
        if method not in {"GET", "HEAD"}:
            return _json(405, {"error": f"{method} is not allowed"}, allow="GET, HEAD")
        return page

    async def __call__(self, scope: Message, _receive: Receive, send: Send) -> None:
        """The ASGI application."""
        page = self.answer(scope["method"], scope["path"])
        headers = [
            (b"content-type", page.kind.encode()),
            (b"content-length", str(len(page.body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        if page.allow:
            headers.append((b"allow", page.allow.encode()))
        await send({"type": "http.response.start", "status": page.code, "headers": headers})
        await send({"type": "http.response.body", "body": page.body})


class _Connection(H11Protocol):
    """uvicorn's connection with a limit on the time that a request may take to arrive.

    uvicorn stops its keep-alive timer at the first byte and starts it with the first answer, so a
    silent or a very slow client holds its connection for ever. Here it runs from the start and
    only a whole request head stops it.

    Nor can silent clients keep others out: the newest is let in, for who has something to ask says
    so at once, and the oldest one that says nothing goes.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._since = self.loop.time()
        self._make_room()
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    @property
    def _silent(self) -> bool:
        """No answer of ours is under way."""
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> None:
        ours = [one for one in self.connections if isinstance(one, _Connection)]
        silent = [one for one in ours if one._silent]
        for crowd, most in ((silent, MAX_SILENT), (ours, MAX_CONNECTIONS)):
            if len(crowd) >= most:
                min(crowd, key=lambda one: one._since).transport.abort()

    def data_received(self, data: bytes) -> None:
        self.conn.receive_data(data)
        self.handle_events()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.over = asyncio.Event()

    async def main_loop(self) -> None:
        """Until it is over. uvicorn's own wakes ten times a second, for a limit that is not set."""
        await self.over.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the daemon."""
        yield


class ListenError(OSError):
    """The address cannot be listened on; the message says why and what to look at."""


def bind(address: str, port: int) -> socket.socket:
    """A listening socket. Raises :class:`ListenError` when it cannot be had."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=128)
    except OSError as error:
        raise ListenError(
            f"cannot listen on {address} port {port}: {os.strerror(error.errno or 0)}; "
            f"next: ss -ltnp 'sport = :{port}'"
        ) from error


class Endpoint:
    """Serves *pages* on *listener* until it is closed."""

    def __init__(self, pages: Pages, listener: socket.socket) -> None:
        self._listener = listener
        config = uvicorn.Config(
            pages,
            http=_Connection,
            loop="asyncio",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,  # uvicorn renews it in the loop that is not run
            h11_max_incomplete_event_size=MAX_HEAD,
            timeout_keep_alive=PATIENCE,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)

    async def serve(self) -> None:
        """Serve until :meth:`close`."""
        await self._server.serve(sockets=[self._listener])

    def close(self) -> None:
        """Let :meth:`serve` end: no new connections, at most a second for running answers."""
        self._server.should_exit = True
        self._server.over.set()
