"""How Farrier speaks SSH: fast, and with nothing that rests on SHA-1.

Plain keyword arguments of paramiko's ``SSHClient.connect``, so that pyinfra (from inventory data)
and fabric (``connect_kwargs``) get the same.
"""

from __future__ import annotations

import socket
from functools import wraps
from typing import Any

import paramiko

__all__ = ["CONNECT_TIMEOUT", "SHA1_ALGORITHMS", "SILENCE", "connect_kwargs", "nodelay"]

CONNECT_TIMEOUT = 10.0
"""Seconds until a host that does not answer is given up."""

SILENCE = 45
"""Seconds without any sign of life after which a connection is given up; an own command may be
silent for hours, its host's kernel still answers keep-alive probes."""

SHA1_ALGORITHMS = {
    "keys": ["ssh-rsa", "ssh-rsa-cert-v01@openssh.com"],
    "pubkeys": ["ssh-rsa", "ssh-rsa-cert-v01@openssh.com"],
    "kex": [
        "diffie-hellman-group-exchange-sha1",
        "diffie-hellman-group14-sha1",
        "diffie-hellman-group1-sha1",
    ],
    "macs": ["hmac-sha1", "hmac-sha1-96", "hmac-md5", "hmac-md5-96"],
}
"""What is never negotiated (paramiko < 5 would: CVE-2026-44405). RSA keys still work, with SHA-2;
``ssh-rsa`` names a signature algorithm here, not a kind of key."""


def connect_kwargs(timeout: float = CONNECT_TIMEOUT, silence: int = SILENCE) -> dict[str, Any]:
    """Arguments for ``SSHClient.connect``; *timeout* in seconds, for the TCP connection.

    A host that went away without a word is noticed after *silence* seconds, at least 3.
    """

    @wraps(nodelay)  # not functools.partial: pyinfra writes data as JSON, functions by their name
    def factory(sock: Any, **kwargs: Any) -> paramiko.Transport:
        return nodelay(sock, silence, **kwargs)

    return {
        "timeout": timeout,
        "transport_factory": factory,
        "disabled_algorithms": SHA1_ALGORITHMS,
    }


def nodelay(sock: Any, silence: int = SILENCE, **kwargs: Any) -> paramiko.Transport:
    """A transport on *sock* that does not wait for ACKs before it sends small packets.

    And one that notices within *silence* seconds that nobody is there any more: a run would
    otherwise hang for a quarter of an hour (tcp_retries2) or, while it waits for a command's
    output, for ever.

    paramiko (4 and 5.1) leaves Nagle's algorithm on: with delayed ACKs each remote command then
    takes 44 to 52 ms instead of 3 to 8 ms. Behind a jump host *sock* is a channel, and the socket
    that counts is the one of the connection to the jump host.
    """
    carrier = sock
    while isinstance(carrier, paramiko.Channel):
        carrier = carrier.get_transport().sock
    if isinstance(carrier, socket.socket) and carrier.family != socket.AF_UNIX:
        carrier.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        carrier.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", silence // 3),
            ("TCP_KEEPINTVL", silence // 3),
            ("TCP_KEEPCNT", 2),
            ("TCP_USER_TIMEOUT", silence * 1000),
        ):
            if option := getattr(socket, name, None):  # the operator's machine may be a Mac
                carrier.setsockopt(socket.IPPROTO_TCP, option, value)
    return paramiko.Transport(sock, **kwargs)
