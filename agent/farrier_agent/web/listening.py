"""The socket that the agent's HTTP endpoint listens on."""

from __future__ import annotations

import os
import socket

__all__ = ["ListenError", "bind"]


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
