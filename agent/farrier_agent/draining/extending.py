"""Asks systemd for more time, in the words of sd_notify(3), without its library."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress

__all__ = ["AHEAD", "Extender"]

AHEAD = 30.0
"""Seconds asked for at a time. Who asks has to ask again within them, or systemd goes on."""


class Extender:
    """Tells the service manager of *environment*'s NOTIFY_SOCKET, and nobody where there is none.

    For a control process (``ExecStop=``) the unit needs ``NotifyAccess=all``.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def say(self, text: str, seconds: float = AHEAD) -> None:
        """Ask for *seconds* from now, with *text* for ``systemctl status``. Never fails."""
        if not self._address:
            return
        line = " ".join(text.split())
        message = f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}\nSTATUS={line}"
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(0.5)
            sender.sendto(message.encode(errors="replace"), self._address)
