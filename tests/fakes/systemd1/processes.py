"""The processes of a unit: run to their end, or started, told to end, and killed as one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress

__all__ = ["Main", "run"]


async def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run *command* to its end; its status, as systemd says it: 203 when it cannot be run."""
    try:
        main = await Main.start(command, environment)
    except OSError:
        return 203
    try:
        return await main.ended()
    finally:
        main.kill_all()


class Main:
    """A process with all that it forks, in a group of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str]) -> Main:
        """Start *command*. Raises OSError."""
        return cls(
            await asyncio.create_subprocess_exec(
                *command,
                env={**os.environ, **environment},
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    async def ended(self, within: float | None = None) -> int:
        """Wait for the main process, *within* seconds; its status. Raises TimeoutError."""
        waiting = asyncio.ensure_future(self._process.wait())
        await asyncio.wait({waiting}, timeout=within)
        if not waiting.done():
            waiting.cancel()
            raise TimeoutError
        return waiting.result()

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    def terminate(self) -> None:
        """SIGTERM for the main process alone."""
        if self.alive:
            self._process.terminate()

    def kill_all(self) -> None:
        """SIGKILL for whatever is left."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
