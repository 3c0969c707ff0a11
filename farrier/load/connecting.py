"""Making a connection: TCP, then TLS where the endpoint has it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

from farrier.load.sending import UnreachedError

__all__ = ["connect"]

Protocol = TypeVar("Protocol", bound=asyncio.Protocol)

SMALL = 4096
"""Bytes of a slow reader's receive buffer, so that its slowness reaches the sender."""


async def connect(
    protocol: Callable[[], Protocol],
    address: tuple[str, int],
    context: ssl.SSLContext | None,
    *,
    seconds: float,
    small: bool = False,
) -> Protocol:
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
    protocol: Callable[[], Protocol],
    address: tuple[str, int],
    context: ssl.SSLContext | None,
    *,
    small: bool,
) -> Protocol:
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
