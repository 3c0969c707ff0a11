"""``farrier-agent run``: collectors, the publisher of snapshots, the endpoint, signals.

Each source is collected in a loop of its own, with a deadline; the publisher makes a snapshot from
what they last saw and feeds systemd's watchdog. So nothing that hangs (a driver, an engine, a bus)
holds up what the agent says about the rest. Whatever ends the agent, it touches no gate: the only
thing that it does on SIGTERM is to end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from farrier_agent import __version__, status
from farrier_agent.collectors import replicas, units
from farrier_agent.collectors.replicas import Seen
from farrier_agent.collectors.slot import Slot
from farrier_agent.config import AgentConfig, split_address
from farrier_agent.gate import Gates
from farrier_agent.gatekeeper import Gatekeeper
from farrier_agent.notify import Notifier, watchdog_seconds
from farrier_agent.snapshot import changes, compose
from farrier_agent.web import Endpoint, Pages, bind

__all__ = ["Daemon", "cancel", "run"]

log = logging.getLogger("farrier-agent")

Look = Callable[[], Awaitable[object]]


class Daemon:
    """The agent of one host."""

    def __init__(self, config: AgentConfig, environment: Mapping[str, str]) -> None:
        self._config = config
        self._tick = config.tick
        # a source gets a tick to answer, but not less than a second, nor more than five
        self._deadline = max(1.0, min(5.0, config.tick))
        self._notifier = Notifier.from_environment(environment)
        watchdog = watchdog_seconds(environment)
        self._period = min(self._tick, watchdog / 3) if watchdog else self._tick
        self._agent = status.Agent(
            version=__version__,
            python=platform.python_version(),
            pid=os.getpid(),
            started_at=time.time(),
        )
        self._gpus: Slot[status.Gpus] = Slot("gpu", self._tick)
        self._units: Slot[tuple[status.Unit, ...]] = Slot("units", self._tick)
        self._replicas: Slot[dict[str, Seen]] = Slot("replicas", self._tick)
        self._news = asyncio.Event()
        self._pages = Pages()
        self._last: status.Status | None = None

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises ListenError."""
        address, port = split_address(self._config.listen)
        endpoint = Endpoint(self._pages, bind(address, port))
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        self._publish()
        serving = asyncio.create_task(endpoint.serve())
        loops = [asyncio.create_task(self._publish_always())]
        loops += [asyncio.create_task(self._every_tick(look)) for look in self._looks()]
        told = asyncio.create_task(stop.wait())
        self._notifier.ready()
        log.info("farrier-agent %s listens on %s", __version__, self._config.listen)
        # a loop that ends is a defect: then the agent ends too, and systemd starts it again
        ended, _ = await asyncio.wait({serving, told, *loops}, return_when=asyncio.FIRST_COMPLETED)
        self._notifier.stopping()
        endpoint.close()
        await cancel((told, *loops))
        await asyncio.gather(serving, return_exceptions=True)
        for task in ended:
            task.result()
        log.info("farrier-agent stopped; gates are as they were")

    def _looks(self) -> Iterator[Look]:
        if self._config.accelerator == "cuda":
            yield self._gpu_look()
        else:
            log.info("this host has no GPU (accelerator = %r)", self._config.accelerator)
        if self._config.replicas:
            yield self._replica_look()

    async def _every_tick(self, look: Look) -> None:
        """Look again and again, a tick after the last look began or at once when that took more."""
        while True:
            begun = time.monotonic()
            await look()
            self._news.set()
            await asyncio.sleep(max(0.0, begun + self._tick - time.monotonic()))

    async def _publish_always(self) -> None:
        """Publish whenever there is news, and every period without any: data also grow old."""
        while True:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), self._period)
            self._news.clear()
            self._publish()

    def _gpu_look(self) -> Look:
        from farrier_agent.collectors.gpu import GpuCollector  # noqa: PLC0415 - only with a GPU

        collector = GpuCollector(self._config.nvml_library)
        return partial(self._gpus.attempt, partial(collector.collect, deadline=self._deadline))

    def _replica_look(self) -> Look:
        config = self._config
        read = partial(units.read, deadline=self._deadline)
        gates = Gates(Path(config.gate_dir), Path(config.run_dir) / "opened.json")
        keeper = Gatekeeper(gates, read)
        names = [replica.unit for replica in config.replicas]

        async def look() -> None:
            states = await self._units.attempt(partial(read, names))
            await self._replicas.attempt(
                partial(replicas.collect, config, states, keeper, deadline=self._deadline)
            )

        return look

    def _slots(self) -> Iterator[Slot[Any]]:
        if self._config.accelerator == "cuda":
            yield self._gpus
        if self._config.replicas:
            yield self._units
            yield self._replicas

    def _publish(self) -> None:
        now = time.monotonic()
        snapshot = compose(
            self._config,
            self._agent,
            at=time.time(),
            collectors=[slot.report(now) for slot in self._slots()],
            gpus=self._gpus.current(now),
            units=self._units.current(now),
            seen=self._replicas.current(now),
        )
        self._pages.show(snapshot)
        for line in changes(self._last, snapshot):
            log.info("%s", line)
        if self._last is None or self._last.ready != snapshot.ready:
            self._notifier.status("ready" if snapshot.ready else "; ".join(snapshot.reasons))
        self._last = snapshot
        self._notifier.watchdog()


async def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel *tasks* until they have ended.

    Once is not enough: before Python 3.12 ``wait_for`` loses a cancellation that meets the answer
    it was waiting for (python/cpython#86296). Of 40 agents that looked every 4 ms, one never
    stopped.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)


def run(config: AgentConfig, environment: Mapping[str, str]) -> None:
    """Run the agent until it is told to stop. Raises ListenError when it cannot listen."""
    asyncio.run(Daemon(config, environment).run())
