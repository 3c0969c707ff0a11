"""A bare asyncio server that says what the agent says, to everybody: the limit of agent-check.

echo.py PORT
"""

from __future__ import annotations

import asyncio
import sys


class Echo(asyncio.Protocol):
    """One connection: a line, an answer, its end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It came."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """The whole line: it is a few bytes."""
        self.transport.write(b"up ready 100%\n")
        self.transport.close()


async def main() -> None:
    """Serve until it is killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "0.0.0.0", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
