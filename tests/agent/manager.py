"""systemd's end of NOTIFY_SOCKET."""

from __future__ import annotations

import queue
import socket
import threading
from pathlib import Path


class Manager:
    """Hears what a service says by sd_notify, at once and always, as systemd does.

    The kernel keeps ten datagrams that nobody has read; with the eleventh the service waits, and
    a test that waits for the service before it reads would wait for ever.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._heard: queue.Queue[str] = queue.Queue()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while text := self._socket.recv(4096):
            self._heard.put(text.decode())

    def next(self, seconds: float = 60) -> str:
        """The next words. Raises :class:`queue.Empty` when there are none within *seconds*."""
        return self._heard.get(timeout=seconds)

    def until(self, text: str, seconds: float = 60) -> None:
        """Return when *text* was said; what was said before is over then."""
        while text not in self.next(seconds):
            pass

    def rest(self) -> list[str]:
        """All that was said and not yet asked for, by a service that has ended."""
        if self._reader.is_alive():
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.sendto(b"", self.path)
            self._reader.join()
        return [self._heard.get() for _ in range(self._heard.qsize())]

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()
        self._socket.close()
