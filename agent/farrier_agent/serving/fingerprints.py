"""The fingerprint of this host: recorded on demand, and compared with whatever is seen."""

from __future__ import annotations

import asyncio
import logging
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from farrier_agent import status
from farrier_agent.control.errors import ControlError
from farrier_agent.control.protocol import Entry, Final, Fingerprinted
from farrier_agent.control.requests import Fingerprint as Request
from farrier_agent.control.server import Tell
from farrier_agent.draining.record import Now
from farrier_agent.fingerprint.compared import differences
from farrier_agent.fingerprint.keeping import FingerprintFile, FingerprintFileError
from farrier_agent.fingerprint.made import Fingerprint, Speed, make
from farrier_agent.fingerprint.speed import MeasureError, measure
from farrier_agent.serving.house import OfReplica
from farrier_agent.serving.worker import Worker
from farrier_agent.status import Difference, Gpus, Status

__all__ = ["Fingerprints"]

log = logging.getLogger("farrier-agent")

READ_SECONDS = 1.0
"""Seconds that the start waits for what was recorded."""


class Fingerprints:
    """What was recorded in the file at *path*, compared with what the host is now."""

    def __init__(self, path: Path) -> None:
        self._file = FingerprintFile(path)
        self._worker = Worker("fingerprint")
        self._recorded: Fingerprint | None = None
        self._problem: str | None = "not read yet"
        self._kernel = platform.release()
        self._boot_id = Now.read().boot_id
        self._measured: tuple[Speed, ...] = ()
        self._compared: tuple[Gpus | None, tuple[Difference, ...]] | None = None
        self._measuring = asyncio.Lock()

    async def read(self) -> None:
        """Read what was recorded; a disk that hangs holds nothing up."""
        reading = asyncio.ensure_future(self._read())
        await asyncio.wait({reading}, timeout=READ_SECONDS)

    async def _read(self) -> None:
        try:
            self._recorded = await self._worker.do(self._file.load)
            self._problem = None
        except FingerprintFileError as error:
            self._problem = str(error)
            log.warning("the fingerprint cannot be read: %s", error)

    def shown(self, now: Status) -> status.Fingerprint | None:
        """How *now* compares with what was recorded, without any speed; None before a record."""
        if self._recorded is None:
            problem = self._problem
            return status.Fingerprint(problem=problem) if problem else None
        if self._compared is None or self._compared[0] is not now.gpus:
            found = differences(self._recorded, self._make(now))
            known = set(self._compared[1]) if self._compared else set()
            for one in found:
                if one not in known:
                    extra = {"cause": "fingerprint"}
                    log.warning("not as its fingerprint was recorded: %s", one, extra=extra)
            self._compared = now.gpus, found
        return status.Fingerprint(recorded_at=self._recorded.at, differences=self._compared[1])

    def _make(self, now: Status, speeds: Sequence[Speed] = ()) -> Fingerprint:
        return make(now, kernel=self._kernel, boot_id=self._boot_id, speeds=speeds)

    async def answer(
        self,
        request: Request,
        ones: Sequence[OfReplica],
        snapshot: Callable[[], Status],
        tell: Tell,
    ) -> Final:
        """Do what *request* asks for; *ones* are the replicas that are measured for it."""
        if request.action in {"check", "show"} and self._recorded is None:
            raise ControlError(
                f"no fingerprint: {self._problem or 'none was recorded'}",
                "farrier-agent fingerprint record",
            )
        if request.action == "show":
            return Fingerprinted(action="show", recorded=self._recorded)
        if self._measuring.locked() and request.action != "measure":
            raise ControlError("another one is being measured", "try again when it is over")
        async with self._measuring:
            speeds, missing = await self._measure(request, ones, tell)
        now = self._make(snapshot(), speeds)
        if request.action == "measure":
            self._measured = speeds
            return Fingerprinted(action="measure", now=now, missing=missing)
        before = self._recorded
        found = differences(before, now, tolerance=request.tolerance) if before else ()
        if request.action == "record":
            await self._keep(now)
        return Fingerprinted(
            action=request.action,
            recorded=self._recorded,
            now=now,
            differences=found,
            missing=missing,
        )

    async def _keep(self, now: Fingerprint) -> None:
        if now.gpus is None:
            raise ControlError(
                "nothing was recorded: the GPUs cannot be read", "farrier-agent status"
            )
        before = self._recorded
        if not now.speeds:
            # what was measured once is not forgotten because nothing was measured now
            speeds = self._measured or (before.speeds if before else ())
            now = msgspec.structs.replace(now, speeds=speeds)
        try:
            await self._worker.do(lambda: self._file.save(now))
        except FingerprintFileError as error:
            raise ControlError(f"nothing was recorded: {error}", "df -h /var/lib") from error
        self._recorded, self._problem, self._compared = now, None, None

    async def _measure(
        self, request: Request, ones: Sequence[OfReplica], tell: Tell
    ) -> tuple[tuple[Speed, ...], tuple[str, ...]]:
        speeds: list[Speed] = []
        missing: list[str] = []
        for one in ones if request.seconds else ():
            wanted = one.life.replica
            said = f"{wanted.name}: measuring for {request.seconds:g} s"
            await tell(Entry(at=time.time(), message=said, replica=wanted.name))
            try:
                speeds.append(
                    await measure(
                        wanted.port,
                        replica=wanted.name,
                        model=wanted.model,
                        engine=wanted.engine,
                        seconds=request.seconds,
                        others=lambda: one.looker.count.requests or 0,  # noqa: B023 - within this turn
                    )
                )
            except MeasureError as error:
                missing.append(str(error))
        return tuple(speeds), tuple(missing)
