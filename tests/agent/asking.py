"""A request to the agent that waits for its last word while the test goes on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from farrier_agent.control import client
from farrier_agent.control.protocol import Final, News, Progress, Request

__all__ = ["Asking"]

PATIENCE = 20.0


class Asking:
    """A request to the agent at *path*. ``news`` is what was told meanwhile."""

    def __init__(self, path: Path, request: Request) -> None:
        self.news: list[News] = []
        self._path = path
        self._request = request
        self._pool = ThreadPoolExecutor(1)
        self._last = self._pool.submit(self._ask)
        self._pool.shutdown(wait=False)

    def _ask(self) -> Final:
        return client.ask(self._request, path=self._path, hear=self.news.append, answer_within=10)

    @property
    def progress(self) -> list[Progress]:
        """What was told of replicas."""
        return [one for one in self.news if isinstance(one, Progress)]

    @property
    def over(self) -> bool:
        return self._last.done()

    def last_word(self, seconds: float = PATIENCE) -> Final:
        """Wait for it. Raises ControlError, and TimeoutError."""
        return self._last.result(seconds)
