"""The agent with one configuration: collectors, replicas' lives, the publisher of snapshots.

Each source is collected in a loop of its own, with a deadline; each replica has a life of its own;
the publisher makes a snapshot from what they last saw and feeds systemd's watchdog. So nothing that
hangs (a driver, an engine, a bus, a disk) holds up what the agent says about the rest. Whatever
ends the agent, it touches no gate: the only thing that it does on SIGTERM is to end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from farrier_agent import __version__, status
from farrier_agent.agentcheck import AgentCheck
from farrier_agent.collectors import CollectError, replicas
from farrier_agent.collectors.replicas import Seen
from farrier_agent.collectors.slot import Slot
from farrier_agent.config import AgentConfig
from farrier_agent.control.server import ControlServer
from farrier_agent.draining.record import Now
from farrier_agent.hardware import Hardware
from farrier_agent.listeners import Listeners, group_of
from farrier_agent.notices import Notice
from farrier_agent.notify import Notifier, watchdog_seconds
from farrier_agent.serving.fingerprints import Fingerprints
from farrier_agent.serving.handlers import Requests
from farrier_agent.serving.house import House
from farrier_agent.serving.leases import Leases
from farrier_agent.serving.noticing import Noticing
from farrier_agent.serving.restarting import Restarts
from farrier_agent.serving.returning import Returning
from farrier_agent.snapshot import changes, compose, summary
from farrier_agent.traffic import Logs, Traffic
from farrier_agent.web import Endpoint, InForce, Pages

__all__ = ["Daemon", "Kept", "cancel"]

log = logging.getLogger("farrier-agent")

Look = Callable[[], Awaitable[object]]


START_SECONDS = 5.0
"""Seconds that everything may take to be looked at for the first time."""


@dataclass(frozen=True)
class Kept:
    """What outlives a reading of the configuration."""

    agent: status.Agent
    pages: Pages
    logs: Logs = field(default_factory=Logs)
    web: dict[str | None, InForce] = field(default_factory=dict)

    def web_of(self, path: str | None) -> InForce:
        """The web configuration at *path*: what was in force stays while its file is spoilt."""
        for other in self.web.keys() - {path}:
            del self.web[other]
        return self.web.setdefault(path, InForce(Path(path) if path else None))


class Daemon:
    """The agent of one host with one configuration. *listeners* have what *config* wants.

    What was published with an earlier configuration stays until everything was looked at.
    """

    def __init__(
        self,
        config: AgentConfig,
        environment: Mapping[str, str],
        listeners: Listeners,
        kept: Kept,
    ) -> None:
        self._config = config
        self._listeners = listeners
        self._agent = kept.agent
        self._pages = kept.pages
        self._tick = config.tick
        # a source gets a tick to answer, but not less than a second, nor more than five
        self._deadline = max(1.0, min(5.0, config.tick))
        self._notifier = Notifier.from_environment(environment)
        watchdog = watchdog_seconds(environment)
        self._period = min(self._tick, watchdog / 3) if watchdog else self._tick
        self._units: Slot[tuple[status.Unit, ...]] = Slot("units", self._tick)
        self._replicas: Slot[dict[str, Seen]] = Slot("replicas", self._tick)
        self._notices: Slot[None] = Slot("notices", self._tick)
        self._news = asyncio.Event()
        self._replicas_looked = asyncio.Event()
        self._begun = time.monotonic()
        self._last: status.Status | None = None
        self._said = ""
        self._traffic = Traffic(config, kept.logs, deadline=self._deadline)
        self._web = kept.web_of(config.web_config)
        self._rendered = 0.0
        self._leases = Leases(config, self._news.set)
        self._house = House(
            config, self._news.set, self._traffic.told, hands_off=self._leases.hands_off
        )
        self._hardware = Hardware(config, self._house, self._shown, self._news.set)
        self._fingerprints = Fingerprints(Path(config.state_dir) / "fingerprint.json")
        self._restarts = Restarts(self._house.actor, self._leases)
        self._check: AgentCheck | None = None
        self._noticing: Noticing | None = None
        if config.notices is not None:
            self._noticing = Noticing(config, config.notices, self._house, self._news.set)

    async def run(self, over: asyncio.Event) -> None:
        """Serve until *over*."""
        loop = asyncio.get_running_loop()
        await self._fingerprints.read()
        http = self._listeners.get("http")
        assert http is not None  # noqa: S101 - every configuration has it
        endpoint = Endpoint(self._pages, http, self._web)
        if not self._pages.shown:
            self._publish()
        serving = loop.create_task(endpoint.serve())
        loops = [
            loop.create_task(self._publish_always()),
            *(loop.create_task(self._every_tick(look)) for look in self._looks()),
            *self._house.loops(),
            loop.create_task(self._hardware.guard.run()),
            loop.create_task(Returning(self._leases, self._house, self._hardware.unwell).run()),
            *self._servers(),
        ]
        told = loop.create_task(over.wait())
        self._notifier.ready()
        log.info("farrier-agent %s listens on %s", __version__, self._config.listen)
        # a loop that ends is a defect: then the agent ends too, and systemd starts it again
        ended, _ = await asyncio.wait({serving, told, *loops}, return_when=asyncio.FIRST_COMPLETED)
        endpoint.close()
        await cancel((told, *loops))
        await self._restarts.close()
        await self._leases.close()
        await self._hardware.close()
        await self._house.close()
        await asyncio.gather(serving, return_exceptions=True)
        for task in ended:
            task.result()

    def _servers(self) -> Iterator[asyncio.Task[None]]:
        loop = asyncio.get_running_loop()
        if control := self._listeners.get("control"):
            requests = Requests(
                self._config,
                self._house,
                self._restarts,
                self._compose,
                hardware=self._hardware,
                leases=self._leases,
                fingerprints=self._fingerprints,
            )
            server = ControlServer(requests, control, group=group_of(self._config))
            yield loop.create_task(server.serve())
        if check := self._listeners.get("check"):
            serves = self._hardware.guard.relied_on
            run = self._house.run_of
            self._check = AgentCheck(self._takes_requests, check, serves=serves, run=run)
            yield loop.create_task(self._serve_check(self._check))
        if self._noticing:
            yield loop.create_task(self._noticing.run())

    async def _serve_check(self, check: AgentCheck) -> None:
        # a gateway that asks meanwhile waits: "drain" would be said of what only is not read yet
        await self._house.known(START_SECONDS)
        await check.serve()

    def _takes_requests(self, name: str) -> bool:
        one = self._house.replicas.get(name)
        return one is not None and one.life.takes_requests

    def _looks(self) -> Iterator[Look]:
        yield self._machine_look
        if self._config.accelerator != "cuda":
            log.info("this host has no GPU (accelerator = %r)", self._config.accelerator)
        if self._config.replicas:
            yield self._replica_look
        yield from self._traffic.looks()
        if self._noticing:
            yield partial(self._notices.attempt, partial(_asked, self._noticing))

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
            if self._is_known():
                self._publish()
            else:
                self._notifier.watchdog()

    def _is_known(self) -> bool:
        """Everything was looked at, or will not be for a while, or nothing was shown before."""
        if self._last is not None or time.monotonic() - self._begun > START_SECONDS:
            return True
        now = time.monotonic()
        return all(slot.report(now).duration_seconds is not None for slot in self._slots())

    def _shown(self) -> tuple[status.Replica, ...]:
        """The replicas now, for those who judge them.

        Not as they were last published: after a reading of the configuration nothing was yet, and
        without replicas their faults would be forgotten.
        """
        return self._compose().replicas

    async def _machine_look(self) -> None:
        if self._config.replicas:
            with suppress(asyncio.TimeoutError):  # one that was never looked at is no fault
                await asyncio.wait_for(self._replicas_looked.wait(), START_SECONDS)
        await self._hardware.look()

    async def _replica_look(self) -> None:
        states = await self._units.attempt(self._house.states)
        look = partial(replicas.collect, self._config, states, deadline=self._deadline)
        await self._replicas.attempt(look)
        self._replicas_looked.set()

    def _slots(self) -> Iterator[Slot[Any]]:
        yield from self._hardware.slots()
        if self._config.replicas:
            yield self._units
            yield self._replicas
        yield from self._traffic.slots()
        if self._noticing:
            yield self._notices

    def _compose(self) -> status.Status:
        now = time.monotonic()
        moment = Now.read()
        notices = self._noticing.notices if self._noticing else ()
        made = compose(
            self._config,
            self._agent,
            at=moment.epoch,
            collectors=[slot.report(now) for slot in self._slots()],
            machine=self._hardware.machine(now),
            units=self._units.current(now),
            seen=self._replicas.current(now),
            show=lambda shown: self._house.replicas[shown.name].show(shown, moment),
            own_units=self._house.own_units(),
            notices=[_shown(notice) for notice in notices],
            agent_check=_counts(self._check),
            requests=self._traffic.requests(now),
            web=(self._web.good, self._web.problem),
            rollout=self._leases.shown(moment),
        )
        return msgspec.structs.replace(made, fingerprint=self._fingerprints.shown(made))

    def _publish(self) -> None:
        snapshot = self._compose()
        now = time.monotonic()
        self._pages.show(snapshot, self._traffic.page(now))
        told = list(changes(self._last, snapshot))
        # /metrics is the largest page by far: once a tick, and when there is more than new numbers
        if told or now - self._rendered >= 0.9 * self._tick or self._last is None:
            self._rendered = now
            self._pages.render()
        for change in told:
            extra = {"replica": change.replica, "cause": "state"} if change.replica else {}
            log.log(change.level, "%s", change.text, extra=extra)
        said = summary(snapshot)
        if said != self._said:
            self._notifier.status(said)
        self._last, self._said = snapshot, said
        self._notifier.watchdog()


async def _asked(noticing: Noticing) -> None:
    """Raises CollectError where the cloud cannot be asked for its notices."""
    if noticing.problem is not None:
        raise CollectError(noticing.problem)


def _counts(check: AgentCheck | None) -> status.AgentCheck | None:
    if check is None:
        return None
    return status.AgentCheck(answered=check.answered, refused=check.refused)


def _shown(notice: Notice) -> status.Notice:
    return status.Notice(
        cloud=notice.cloud,
        kind=notice.kind,
        id=notice.id,
        at=notice.at,
        drains=notice.drains,
        detail=notice.detail,
    )


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
