"""A stand-in for python3-systemd's ``systemd.daemon``: sends to the real NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket


def notify(status: str, unset_environment: bool = False) -> bool:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(status.encode(), address.replace("@", "\0", 1))
    return True
