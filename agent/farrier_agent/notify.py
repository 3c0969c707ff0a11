"""Talks to the service manager (sd_notify), and to nobody where there is none.

``systemd.daemon`` comes from the Debian package python3-systemd: it is on the hosts, not in the
agent's own environment.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Mapping

__all__ = ["Notifier", "watchdog_seconds"]

log = logging.getLogger("farrier-agent")


class Notifier:
    """Tells systemd how the service fares. *send* takes one sd_notify(3) assignment."""

    def __init__(self, send: Callable[[str], object]) -> None:
        self._send = send

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Notifier:
        """A notifier for NOTIFY_SOCKET; a silent one outside systemd or without its module."""
        if not environment.get("NOTIFY_SOCKET"):
            return cls(lambda _: None)
        try:
            daemon = importlib.import_module("systemd.daemon")
        except ImportError as error:
            log.error(
                "NOTIFY_SOCKET is set, but systemd cannot be told that the agent is ready: %s; "
                "next: apt-get install python3-systemd",
                error,
            )
            return cls(lambda _: None)
        return cls(daemon.notify)

    def ready(self) -> None:
        """The agent serves."""
        self._send("READY=1")

    def watchdog(self) -> None:
        """The agent is alive."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The agent is on its way out."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._send(f"STATUS={' '.join(text.split())}")


def watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """How often systemd wants to hear from this process at least; None when it does not ask."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        interval = int(environment["WATCHDOG_USEC"]) / 1_000_000
    except (KeyError, ValueError):
        return None
    return interval if interval > 0 else None
