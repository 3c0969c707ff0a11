"""The file of orders: read when it changes, and what it says about failing and hanging."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.fakes.systemd1.wire import CallError

__all__ = ["Orders"]


class Orders:
    """What the file at *path* says now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] = (0, 0)
        self._fired: object = None
        self._said: dict[str, Any] = {}
        self._turn = asyncio.Event()
        self.now: dict[str, Any] = {}
        self.refresh()

    def refresh(self) -> bool:
        """Read the file if it is another one; whether anything changed."""
        stat = self._path.stat()
        if (stat.st_ino, stat.st_mtime_ns) != self._seen:
            self._said = json.loads(self._path.read_text())
            self._seen = (stat.st_ino, stat.st_mtime_ns)
        now = self._said
        if once := now.get("once"):
            if Path(once["exists"]).exists():
                self._fired = once
            if self._fired == once:
                now = {**now, **once["then"]}
        if now == self.now:
            return False
        self.now = now
        self._turn.set()
        self._turn = asyncio.Event()
        return True

    async def pass_on(self, method: str) -> None:
        """Wait while *method* hangs; raise CallError where it is to fail."""
        while {"*", method} & set(self.now.get("hang", ())):
            await self._turn.wait()
        failures = self.now.get("fail", {})
        failure = failures.get(method) or failures.get("*")
        if failure:
            raise CallError(*failure)
