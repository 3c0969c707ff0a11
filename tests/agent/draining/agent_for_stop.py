"""An agent as far as ``ExecStop=`` knows one: the real control socket, records and counting.

``python -m tests.agent.draining.agent_for_stop SOCKET STATE_DIR GATE_DIR PORT MANNER``. With the
manner ``idle`` it accepts the request and then does nothing; with ``silent`` it does not accept.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from farrier_agent.control.listening import bind
from farrier_agent.control.peer import Asker
from farrier_agent.control.protocol import Done, Final, Stopping
from farrier_agent.control.server import ControlServer, Tell
from farrier_agent.draining import inflight
from farrier_agent.draining.events import Looked, StopBegan
from farrier_agent.draining.keeping import Keeper
from farrier_agent.draining.record import Phase
from farrier_agent.draining.store import Store
from farrier_agent.gate import Gates


class Handlers:
    """Drains when systemd stops the unit."""

    def __init__(self, keeper: Keeper, port: int, manner: str) -> None:
        self._keeper = keeper
        self._port = port
        self._manner = manner

    async def stopping(self, request: Stopping, asker: Asker, tell: Tell) -> Final:
        if self._manner == "idle":
            await asyncio.sleep(3600)
        run = os.environ["RUN"]
        print("asked", flush=True)
        record = self._keeper.tell(request.replica, StopBegan(run, settle=1.0)).record
        while record.phase is Phase.DRAINING:
            seen = inflight.look(self._port, nginx_uid=os.getuid()).requests
            record = self._keeper.tell(request.replica, Looked(seen)).record
            print(f"{record.phase.value} {seen}", flush=True)
            await asyncio.sleep(1.0)
        return Done()


async def main() -> None:
    path, states, gates, port, manner = sys.argv[1:]
    keeper = Keeper(Store(Path(states)), Gates(Path(gates)))
    listener = bind(Path(path))
    print("listens", flush=True)
    if manner == "silent":
        time.sleep(3600)
    await ControlServer(Handlers(keeper, int(port), manner), listener).serve()  # type: ignore[arg-type]


if __name__ == "__main__":
    asyncio.run(main())
