"""The endpoint on a real socket, in a thread, with a web configuration that a test writes."""

from __future__ import annotations

import asyncio
import base64
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple, TypeVar

from farrier_agent.status import Status
from farrier_agent.web import Endpoint, InForce, Pages, bind

from tests.agent.full_status import full_status
from tests.agent.web.certificates import Authority, Pair, replace

__all__ = [
    "ALICE",
    "MTLS",
    "REFUSALS",
    "TLS",
    "Reply",
    "Served",
    "basic",
    "client_context",
    "handshake",
]

T = TypeVar("T")

WORD = "wonderland"
ALICE = "$2b$04$SCkmxqYA97Gi1ozs6MDCRuwloIj8msK/v9wM6CHP9har429S0C6/u"
"""bcrypt of "wonderland"."""

TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
MTLS = TLS + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
REFUSALS = (OSError,)
"""How a client sees that it is not let in: an alert, a reset, an end (ssl.SSLError is one)."""


class Reply(NamedTuple):
    """What the endpoint answered; the headers' names are lower case."""

    code: int
    body: bytes
    headers: Mapping[str, str]


def basic(user: str = "alice", password: str = WORD) -> dict[str, str]:
    """The header of basic authentication."""
    word = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {word}"}


def client_context(authority: Authority, pair: Pair | None, directory: Path) -> ssl.SSLContext:
    """What a client verifies the endpoint with, and shows of itself."""
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    if pair is not None:
        context.load_cert_chain(*pair.write(directory, "client"))
    return context


class Served:
    """An endpoint for the time of a ``with``. Its status has every reading."""

    def __init__(
        self, directory: Path, web: str | None = None, status: Status | None = None
    ) -> None:
        self.directory = directory
        self.path = directory / "web.yml"
        self.authority = Authority()
        self.authority.server().write(directory, "server")
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready: Future[None] = Future()
        self.pages = Pages()
        self.pages.show(status or full_status())
        self.pages.render()
        if web is not None:
            self.write(web)
        self.in_force = InForce(self.path if web is not None else None)

    def __enter__(self) -> Served:
        listener = bind("127.0.0.1", 0)
        self.port: int = listener.getsockname()[1]
        self.endpoint = Endpoint(self.pages, listener, self.in_force)
        self._thread.start()
        self._ready.result(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self.endpoint.close)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._ready.set_result, None)
            await self.endpoint.serve()

        asyncio.run(serve())

    def inside(self, what: Callable[[], T]) -> T:
        """The value of *what*, asked in the endpoint's own thread."""
        done: Future[T] = Future()
        self._loop.call_soon_threadsafe(lambda: done.set_result(what()))
        return done.result(10)

    def write(self, text: str) -> None:
        """Replace the web configuration."""
        replace(self.path, text.encode())

    def context(
        self, pair: Pair | None = None, authority: Authority | None = None
    ) -> ssl.SSLContext:
        """A client's, who trusts this endpoint and shows *pair*."""
        return client_context(authority or self.authority, pair, self.directory)

    def get(
        self,
        path: str = "/livez",
        headers: Mapping[str, str] = {},
        tls: ssl.SSLContext | None = None,
        method: str = "GET",
    ) -> Reply:
        """Ask over a connection of its own. Raises OSError and http.client.HTTPException."""
        one = self.connection(tls)
        try:
            return ask(one, path, headers, method)
        finally:
            one.close()

    def connection(self, tls: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
        """A connection that can be asked several times, with :func:`ask`."""
        if tls is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=tls)

    def connect(self) -> socket.socket:
        """A connection on which nothing is said yet."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


def ask(
    one: http.client.HTTPConnection,
    path: str = "/livez",
    headers: Mapping[str, str] = {},
    method: str = "GET",
) -> Reply:
    """Ask over *one*."""
    one.request(method, path, headers=dict(headers))
    answer = one.getresponse()
    body = answer.read()
    return Reply(answer.status, body, {key.lower(): value for key, value in answer.getheaders()})


def handshake(one: Served, tls: ssl.SSLContext) -> ssl.SSLSocket:
    """A connection after the handshake of *tls*; ssl.SSLError where none comes about."""
    return tls.wrap_socket(one.connect(), server_hostname="localhost")
