"""``farrier-agent run``: the process, its signals, and the reading of its configuration again."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from farrier_agent import __version__, status
from farrier_agent.config import AgentConfig, ConfigError
from farrier_agent.daemon import Daemon, Kept
from farrier_agent.listeners import ListenError, Listeners
from farrier_agent.notify import Notifier
from farrier_agent.web import Pages

__all__ = ["run"]

log = logging.getLogger("farrier-agent")


class _Agent:
    """The process: one :class:`Daemon` after another, as often as its configuration changes."""

    def __init__(
        self, path: Path, read: Callable[[], AgentConfig], environment: Mapping[str, str]
    ) -> None:
        self._path = path
        self._read = read
        self._config = read()
        self._environment = environment
        self._listeners = Listeners()
        self._over = asyncio.Event()
        self._stopping = False

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises ListenError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._read_again)
        agent = status.Agent(
            version=__version__,
            python=platform.python_version(),
            pid=os.getpid(),
            started_at=time.time(),
        )
        kept = Kept(agent, Pages())
        self._listeners.bind(self._config)
        while not self._stopping:
            self._over.clear()
            daemon = Daemon(self._config, self._environment, self._listeners, kept)
            await daemon.run(self._over)
        self._listeners.close()
        kept.logs.close()
        log.info("farrier-agent stopped; gates are as they were")

    def _stop(self) -> None:
        self._stopping = True
        Notifier.from_environment(self._environment).stopping()
        self._over.set()

    def _read_again(self) -> None:
        try:
            config = self._read()
            if config == self._config:
                log.info("SIGHUP: %s says nothing new", self._path)
                return
            self._listeners.bind(config)
        except (ConfigError, ListenError) as error:
            log.error("SIGHUP: the old configuration stays in force: %s", error)
            return
        log.info("SIGHUP: %s is read again", self._path)
        self._config = config
        self._over.set()


def run(path: Path, read: Callable[[], AgentConfig], environment: Mapping[str, str]) -> None:
    """Run the agent until it is told to stop; *read* gives its configuration, which is at *path*.

    Raises ConfigError, and ListenError when it cannot listen.
    """

    async def agent() -> None:
        await _Agent(path, read, environment).run()

    asyncio.run(agent())
