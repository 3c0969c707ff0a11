"""How Farrier speaks SSH: fast, and with nothing that rests on SHA-1.

Plain keyword arguments of paramiko's ``SSHClient.connect``, so that pyinfra (from inventory data)
and fabric (``connect_kwargs``) get the same.
"""

from __future__ import annotations

import socket
from typing import Any

import paramiko

__all__ = ["CONNECT_TIMEOUT", "SHA1_ALGORITHMS", "connect_kwargs", "nodelay"]

CONNECT_TIMEOUT = 10.0
"""Seconds until a host that does not answer is given up."""

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


def connect_kwargs(timeout: float = CONNECT_TIMEOUT) -> dict[str, Any]:
    """Arguments for ``SSHClient.connect``; *timeout* in seconds, for the TCP connection."""
    return {
        "timeout": timeout,
        "transport_factory": nodelay,
        "disabled_algorithms": SHA1_ALGORITHMS,
    }


def nodelay(sock: Any, **kwargs: Any) -> paramiko.Transport:
    """A transport on *sock* that does not wait for ACKs before it sends small packets.

    paramiko (4 and 5.1) leaves Nagle's algorithm on: with delayed ACKs each remote command then
    takes 44 to 52 ms instead of 3 to 8 ms. Behind a jump host *sock* is a channel, and the socket
    that counts is the one of the connection to the jump host.
    """
    carrier = sock
    while isinstance(carrier, paramiko.Channel):
        carrier = carrier.get_transport().sock
    if isinstance(carrier, socket.socket) and carrier.family != socket.AF_UNIX:
        carrier.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return paramiko.Transport(sock, **kwargs)
