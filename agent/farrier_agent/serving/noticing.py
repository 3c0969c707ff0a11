"""Drains the host when its cloud announces that it will be taken away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from farrier_agent.config import AgentConfig, split_address
from farrier_agent.draining.events import DrainAsked
from farrier_agent.draining.record import Asker
from farrier_agent.durable import replace
from farrier_agent.notices import EVERY, Looked, Notice, Order, Poller, order
from farrier_agent.serving.house import House
from farrier_agent.serving.worker import Worker

__all__ = ["Noticing"]

log = logging.getLogger("farrier-agent")

MOST = 200
"""Notices that are remembered, for each run of each replica."""


class Noticing:
    """Watches what *cloud* announces to the host of *house*. *changed* is called when it does."""

    def __init__(
        self, config: AgentConfig, cloud: str, house: House, changed: Callable[[], None]
    ) -> None:
        address, port = split_address(config.notices_address)
        gpu = config.accelerator == "cuda"
        self._poller = Poller(cloud, gpu=gpu, address=address, port=port)
        self._cloud = cloud
        self._settle = config.settle_seconds
        self._house = house
        self._changed = changed
        self._looked = Looked()
        self._path = Path(config.records_dir) / "notices.json"
        self._worker = Worker("notices")
        self._obeyed = _read(self._path)

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What was announced at the last look."""
        return self._looked.notices

    @property
    def problem(self) -> str | None:
        """Why the cloud cannot be asked, None when it can."""
        return "; ".join(self._looked.problems) or None

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            self._news(await self._poller.look())
            now = time.time()
            ordered = order(self._looked.notices, now)
            if ordered is not None:
                await self._obey(ordered)
            await asyncio.sleep(max(0.0, begun + EVERY - loop.time()))

    def _news(self, looked: Looked) -> None:
        before, self._looked = self._looked, looked
        known = {one.id for one in before.notices}
        for one in looked.notices:
            if one.id not in known:
                at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.at))
                what = "the host is drained for it" if one.drains else "nothing is done for it"
                log.warning(
                    "notice of %s: %s, not before %s: %s (%s)",
                    *(self._cloud, one.kind, at, one.detail or one.id, what),
                    extra={"cause": "notice"},
                )
        for gone in known - {one.id for one in looked.notices}:
            if not looked.problems:
                log.warning(
                    "notice of %s: %s is withdrawn or over; what it drained stays drained:"
                    " farrier-agent ready --all",
                    self._cloud,
                    gone,
                    extra={"cause": "notice"},
                )
        for problem in set(looked.problems) - set(before.problems):
            log.warning("notices of %s: %s", self._cloud, problem, extra={"cause": "notice"})
        if before != looked:
            self._changed()

    async def _obey(self, ordered: Order) -> None:
        """Drain every replica for the notice, once for each of its runs: a person may undo it."""
        notice = ordered.notice
        by = Asker(
            f"{notice.cloud} (notice)", "notice", f"{notice.kind}: {notice.detail or notice.id}"
        )
        event = DrainAsked(by, settle=self._settle, seconds=ordered.seconds, policy="force")
        for name, one in self._house.replicas.items():
            record = one.life.record
            if record is None or not record.engine_runs:
                continue
            key = f"{notice.id} {name} {record.invocation_id}"
            if key not in self._obeyed and await one.try_to_drain(event):
                self._obeyed[key] = None
                await self._keep()

    async def _keep(self) -> None:
        """Remember what was obeyed: an agent that comes after this one does not overrule a person.

        One that cannot be remembered is obeyed again, which is the careful side.
        """
        while len(self._obeyed) > MOST:
            del self._obeyed[next(iter(self._obeyed))]
        data = msgspec.json.encode(list(self._obeyed))
        try:
            await self._worker.do(lambda: replace(self._path, data))
        except OSError as error:
            log.warning("%s: %s", self._path, error.strerror, extra={"cause": "notice"})


def _read(path: Path) -> dict[str, None]:
    """What was obeyed, oldest first."""
    try:
        return dict.fromkeys(msgspec.json.decode(path.read_bytes(), type=list[str]))
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning("%s: not known which notices were obeyed: %s", path, error)
        return {}
