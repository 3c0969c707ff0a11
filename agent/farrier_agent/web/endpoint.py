"""The HTTP endpoint: accepts connections, each of which goes its own way from there."""

from __future__ import annotations

import asyncio
import socket

from farrier_agent.web.connection import Connection
from farrier_agent.web.crowd import Crowd
from farrier_agent.web.inforce import LOOK_SECONDS, InForce
from farrier_agent.web.pages import Pages
from farrier_agent.web.reception import Reception

__all__ = ["Endpoint"]


class Endpoint:
    """Serves *pages* on *listener* until it is closed, to whom the web configuration lets in.

    Without *web*: over plain HTTP, to everybody.
    """

    def __init__(self, pages: Pages, listener: socket.socket, web: InForce | None = None) -> None:
        self._listener = listener
        self._in_force = web or InForce(None)
        self._reception = Reception(pages, self._in_force)
        self._crowd = Crowd()
        self._over = asyncio.Event()

    async def serve(self) -> None:
        """Serve until :meth:`close`."""
        loop = asyncio.get_running_loop()
        self._in_force.rules()  # before the first client waits for it
        server = await loop.create_server(
            lambda: Connection(self._reception, self._crowd), sock=self._listener, backlog=128
        )
        watching = loop.create_task(self._watch())
        try:
            await self._over.wait()
        finally:
            watching.cancel()
            server.close()
            self._reception.close()
            await self._let_go(loop)

    def close(self) -> None:
        """Let :meth:`serve` end: no new connections, at most a second for running answers."""
        self._over.set()

    async def _watch(self) -> None:
        """Look at the web configuration's files also while nobody asks for anything."""
        while self._in_force.path is not None:
            self._in_force.rules()
            await asyncio.sleep(LOOK_SECONDS)

    async def _let_go(self, loop: asyncio.AbstractEventLoop) -> None:
        self._crowd.each(lambda one: one.abort() if one.silent else None)
        end = loop.time() + 1.0
        while len(self._crowd) and loop.time() < end:
            await asyncio.sleep(0.02)
        self._crowd.each(lambda one: one.abort())
