"""The program: ``python -m tests.fakes.systemd1 SOCKET FILE``, until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

from tests.fakes.systemd1.manager import Manager


async def serve(socket: Path, file: Path) -> None:
    """Be the bus at *socket* until SIGTERM; then every process of a unit is killed."""
    manager = Manager(file)
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    fresh = socket.with_name(socket.name + ".new")
    server = await asyncio.start_unix_server(manager.connected, str(fresh))
    fresh.rename(socket)  # who finds it is answered
    following = asyncio.ensure_future(manager.follow())
    ended = asyncio.ensure_future(told.wait())
    try:
        # a defect here ends the program, and not silently the changes
        await asyncio.wait({following, ended}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
    finally:
        manager.close()
        server.close()
        following.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(prog="systemd1", description="systemd and its bus, faked.")
    parser.add_argument("socket", type=Path)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    asyncio.run(serve(options.socket, options.file))


if __name__ == "__main__":
    main()
