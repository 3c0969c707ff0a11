"""The connections of the clients: kept, shared or fresh; TCP, then TLS where there is some."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

from farrier.load.endpoint import Endpoint
from farrier.load.http1 import Http1
from farrier.load.http2 import Http2
from farrier.load.plan import Plan
from farrier.load.sending import Connection, UnreachedError

__all__ = ["Connections", "connect"]

Made = TypeVar("Made", bound=asyncio.Protocol)

SMALL = 4096
"""Bytes of a slow reader's receive buffer, so that its slowness reaches the sender."""


class Connections:
    """Where clients get theirs from: in HTTP/1.1 each its own, in HTTP/2 shared ones."""

    def __init__(self, plan: Plan, endpoint: Endpoint) -> None:
        self._plan = plan
        self._address = (endpoint.host, endpoint.port)
        self._context = endpoint.context(http2=plan.http2)
        self._shared: list[Http2] = []
        self._lock = asyncio.Lock()

    async def get(
        self, kept: Connection | None, *, fresh: bool = False, small: bool = False
    ) -> Connection:
        """The connection for a request of the client that has *kept* its last one.

        *fresh*: one that has served nobody. Raises UnreachedError.
        """
        if self._plan.http2:
            if fresh or not self._plan.keep_alive:
                return await self._http2()
            async with self._lock:
                for one in self._shared:
                    if await one.usable():
                        return one
                self._shared = [one for one in self._shared if not one.closed]
                self._shared.append(made := await self._http2())
                return made
        if kept is not None and await kept.usable():
            return kept
        if kept is not None:
            kept.close()
        seconds = self._plan.connect_seconds
        return await connect(Http1, self._address, self._context, seconds=seconds, small=small)

    async def _http2(self) -> Http2:
        seconds = self._plan.connect_seconds
        made = await connect(Http2, self._address, self._context, seconds=seconds)
        if self._context is not None and made.negotiated() != "h2":
            made.close()
            raise UnreachedError("the server does not speak HTTP/2 here (ALPN)")
        return made

    def close(self) -> None:
        """Let go of those that are shared."""
        for one in self._shared:
            one.close()


async def connect(
    protocol: Callable[[], Made],
    address: tuple[str, int],
    context: ssl.SSLContext | None,
    *,
    seconds: float,
    small: bool = False,
) -> Made:
    """A *protocol* on a connection to *address*, made within *seconds*.

    *small*: with a small receive buffer. Raises UnreachedError, with why.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _connected(protocol, address, context, small=small)
    except TimeoutError:
        raise UnreachedError(f"no connection within {seconds:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise UnreachedError(f"its certificate is not trusted: {error.verify_message}") from None
    except OSError as error:
        raise UnreachedError(str(error) or repr(error)) from None


async def _connected(
    protocol: Callable[[], Made],
    address: tuple[str, int],
    context: ssl.SSLContext | None,
    *,
    small: bool,
) -> Made:
    loop = asyncio.get_running_loop()
    host, port = address
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    problem: OSError = OSError(f"{host} has no address")
    for family, kind, number, _, where in found:
        sock = socket.socket(family, kind, number)
        try:
            sock.setblocking(False)
            if small:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
            await loop.sock_connect(sock, where)
        except OSError as error:
            sock.close()
            problem = error
            continue
        except BaseException:
            sock.close()
            raise
        _, made = await loop.create_connection(
            protocol, sock=sock, ssl=context, server_hostname=host if context else None
        )
        return made
    raise problem
