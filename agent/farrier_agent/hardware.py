"""What the host is made of: its GPUs, what they and the kernel tell, what is concluded from it.

Everything is looked at once a tick, side by side; then the verdicts are made of what was seen in
this very tick. What could not be seen is unknown, and neither sets nor clears a fault.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from farrier_agent.collectors.gpu import GpuCollector, GpuError
from farrier_agent.collectors.inventory import Inventory
from farrier_agent.collectors.pci import PciCollector
from farrier_agent.collectors.process import Attributed, ProcessCollector
from farrier_agent.collectors.slot import Slot
from farrier_agent.collectors.xid import XidLog, Xids
from farrier_agent.config import AgentConfig
from farrier_agent.control.errors import ControlError, UsageError
from farrier_agent.draining.record import Now
from farrier_agent.gpus import Gpus, UnitOnGpu, XidEvent
from farrier_agent.health.acknowledging import Acknowledged
from farrier_agent.health.deciding import counting_of, held_back
from farrier_agent.health.keeping import Judge
from farrier_agent.health.observed import Observed
from farrier_agent.serving.guarding import Guard
from farrier_agent.serving.house import House
from farrier_agent.serving.release import Release
from farrier_agent.serving.worker import Worker
from farrier_agent.snapshot import Machine
from farrier_agent.status import Health, Replica
from farrier_agent.wording import duration

__all__ = ["Hardware"]

log = logging.getLogger("farrier-agent")
T = TypeVar("T")

LOOK_SECONDS = 1.0
"""Seconds that sysfs, procfs and the kernel's log may take; NVML may take longer."""
CLOSE_SECONDS = 2.0
"""Seconds that the agent's end waits for what is being written."""


class Hardware:
    """The GPUs of the host of *house*, and the verdicts on them and on its replicas.

    *replicas* gives what was last published of the replicas; *changed* is called when what is
    known here did. A host without a GPU has the verdicts on its replicas alone.
    """

    def __init__(
        self,
        config: AgentConfig,
        house: House,
        replicas: Callable[[], tuple[Replica, ...]],
        changed: Callable[[], None],
    ) -> None:
        self._config = config
        self._house = house
        self._replicas = replicas
        self._changed = changed
        self._deadline = max(1.0, min(5.0, config.tick))
        self._release = Release(Path(config.run_dir) / "nvml-released")
        self._begun = False
        state = Path(config.state_dir)
        self._boot_id = Now.read().boot_id
        off = config.collectors_off if config.accelerator == "cuda" else ["gpu", "xid", "pci"]
        self._on = {name: name not in off for name in ("gpu", "xid", "pci")}
        self._on["process"] = self._on["gpu"] and "process" not in config.collectors_off
        tick = config.tick
        self._gpu_slot: Slot[Gpus] = Slot("gpu", tick)
        self._xid_slot: Slot[Xids] = Slot("xid", tick)
        self._pci_slot: Slot[frozenset[str]] = Slot("pci", tick)
        self._process_slot: Slot[Attributed] = Slot("process", tick)
        self._gpus = GpuCollector(config.nvml_library, tick=tick)
        self._xids = XidLog(Path(config.kmsg), state / "xids.json", boot_id=self._boot_id)
        self._pci = PciCollector(Path(config.sys_root))
        self._processes = ProcessCollector(
            Path(config.proc_root), [*config.replicas, *config.members]
        )
        self._inventory = Inventory(
            state / "gpus.json", {one.name: one.gpus for one in config.replicas}
        )
        self._judge = Judge(state / "health.json", config.observe_only)
        self._worker = Worker("health")
        self._saving: asyncio.Task[None] | None = None
        self._disk_problem: str | None = None
        self._judging = asyncio.Lock()
        self._health: Health | None = None
        self._merged: Gpus | None = None
        self.guard = Guard(config, house, self._judge, self._answers, changed)
        if self._judge.problem:
            log.warning("%s", self._judge.problem)

    # -- what the daemon asks for ----------------------------------------------------------------

    def slots(self) -> Iterator[Slot[Any]]:
        """Those of the collectors that run."""
        slots: dict[str, Slot[Any]] = {
            "gpu": self._gpu_slot,
            "xid": self._xid_slot,
            "pci": self._pci_slot,
            "process": self._process_slot,
        }
        yield from (slot for name, slot in slots.items() if self._on[name])

    def machine(self, now: float) -> Machine:
        """What is known at *now* (``time.monotonic()``); nothing that is stale."""
        processes = self._process_slot.current(now)
        gpus = self._gpu_slot.current(now)
        missing = self._merged is not None and self._merged.count is None
        xids = self._xids.latest
        health = self._health
        for name, why in self.guard.held_back.items():
            health = health and held_back(health, name, why)
        return Machine(
            gpus=self._merged if gpus is not None or missing else None,
            nvml=self._gpus.nvml if self._on["gpu"] else None,
            xids=xids.counts if xids else (),
            units=processes.units if processes else (),
            health=health,
        )

    async def look(self) -> None:
        """Look at everything, and judge it."""
        try:
            await self._look()
        except Exception:  # a defect here must not take the replicas' gates and drains with it
            log.exception("what there is to say of the GPUs: unexpected error")
            self._health = None
            self.guard.told_nothing()
        await self._save()

    async def close(self) -> None:
        """End the worker, and keep what is known."""
        await self._gpus.close()
        await self._xids.close()
        await self._inventory.close()
        if self._saving is not None:
            await self._save(CLOSE_SECONDS)
        await self._save(CLOSE_SECONDS)

    async def _look(self) -> None:
        if not self._begun:
            self._begun = True
            if self._on["gpu"] and (left := await self._release.left()):
                log.info("NVML stays let go of for %s", duration(left))
                await self._gpus.worker.release(left)
        nvml = self._seen(self._gpu_slot, partial(self._gpus.collect, deadline=self._deadline))
        bus = self._seen(self._pci_slot, partial(self._pci.collect, LOOK_SECONDS))
        look_at_log = partial(self._xids.collect, LOOK_SECONDS)
        kernel = self._seen(self._xid_slot, look_at_log)
        read, functions, xids = await asyncio.gather(nvml, bus, kernel)
        if read is not None and read.events:
            self._xids.add(read.events)
            xids = await self._seen(self._xid_slot, look_at_log)
        await self._inventory.read(LOOK_SECONDS)
        async with self._judging:
            await self._conclude(read, functions, xids)

    async def _conclude(
        self, read: Gpus | None, functions: frozenset[str] | None, xids: Xids | None
    ) -> None:
        gpus = self._inventory.merge(read, functions)
        for gpu in self._inventory.forgotten:
            self._judge.forget(gpu, time.time())
        units: tuple[UnitOnGpu, ...] = ()
        if gpus is not None:
            self._xids.learn(gpus)
        collect = partial(self._processes.collect, gpus, LOOK_SECONDS)
        found = await self._seen(self._process_slot, collect)
        if found is not None:
            gpus, units = found.gpus, found.units
        if gpus is not None or (self._merged is not None and self._merged.count is None):
            self._merged = gpus  # that GPUs had left the bus is not said for longer than it is seen
        self._health = self._judge.judge(
            Observed(
                at=time.time(),
                monotonic=time.monotonic(),
                boot_id=self._boot_id,
                accelerator=self._config.accelerator if self._on["gpu"] else "cpu",
                gpus=gpus,
                nvml=self._gpus.nvml if self._on["gpu"] else None,
                xids=xids.recent if xids else self._old_xids(),
                kernel_log_problem=self._problem(self._xid_slot),
                pci_problem=self._problem(self._pci_slot),
                units={unit.name: unit for unit in self._house.own_units()},
                replicas=self._replicas(),
                gpu_units=units,
                fabric=self._config.fabric,
            )
        )
        self.guard.told(self._health, self._replicas())

    # -- what people ask for ---------------------------------------------------------------------

    async def ack(self, rule: str | None, gpu: str | None, by: str) -> tuple[str, ...]:
        """Acknowledge what is latched; what was acknowledged, in words. Raises ControlError."""
        async with self._judging:  # what is being judged just now would bring a GPU back
            done = self._acknowledged(rule, gpu)
        for one in done:
            log.info("%s: acknowledged by %s", one, by, extra={"cause": "ack"})
        await self._save()
        return tuple(f"acknowledged: {one}" for one in done) or ("nothing to acknowledge",)

    def _acknowledged(self, rule: str | None, gpu: str | None) -> list[Acknowledged]:
        if rule == "gpu-missing" and self._inventory.problem is not None:
            raise ControlError(f"nothing was done: {self._inventory.problem}", "try again")
        try:
            done = self._judge.ack(rule, gpu, time.time())
        except ValueError as error:
            raise UsageError(str(error), "farrier-agent status") from error
        for one in done:
            if one.forget and one.gpu is not None:
                self._inventory.forget(one.gpu)
        return done

    def overruled(self, replica: str) -> None:
        """A person serves *replica*, whatever is held against its GPUs."""
        if self._health is not None:
            self._judge.overruled(replica, self._health)
        self.guard.overruled(replica)

    def unwell(self, replica: str) -> str | None:
        """Why nobody but a person serves *replica* again; None when nothing is against that."""
        verdict = self._health.replicas.get(replica) if self._health else None
        if verdict is None:
            return "nothing is known of its health"
        return next((one.text for one in counting_of(verdict)), None)

    async def release(self, seconds: float, by: str) -> tuple[str, ...]:
        """Let go of the driver for *seconds*."""
        self._needs_nvml()
        try:
            await self._gpus.worker.release(seconds)
        except GpuError as error:
            raise ControlError(str(error), "farrier-agent status") from error
        await self._release.keep(time.time() + seconds)
        log.warning("NVML is let go of for %s, by %s", duration(seconds), by)
        self._changed()
        return (
            f"NVML is let go of for {duration(seconds)}: the agent has no NVIDIA device open",
            "next: farrier-agent nvml acquire",
        )

    async def acquire(self, by: str) -> tuple[str, ...]:
        """Take the driver up again."""
        self._needs_nvml()
        await self._release.keep(None)
        await self._gpus.worker.acquire()
        log.info("NVML is taken up again, by %s", by)
        self._changed()
        return ("NVML is read again",)

    def _needs_nvml(self) -> None:
        if not self._on["gpu"]:
            raise UsageError("this agent does not read NVML", "farrier-agent status")

    # -- parts of a look -------------------------------------------------------------------------

    async def _seen(self, slot: Slot[T], collect: Callable[[], Awaitable[T]]) -> T | None:
        """What *collect* saw just now."""
        return await slot.attempt(collect) if self._on[slot.name] else None

    def _old_xids(self) -> tuple[XidEvent, ...] | None:
        """What was told before the log could not be read; None if it never could."""
        return self._xids.latest.recent if self._xids.latest else None

    def _problem(self, slot: Slot[Any]) -> str | None:
        report = slot.report(time.monotonic())
        return report.error if self._on[slot.name] and not report.success else None

    def _answers(self, name: str) -> bool | None:
        """Whether the engine of replica *name* answers, and gets on."""
        for one in self._replicas():
            if one.name == name:
                return False if one.health == "wedged" or one.gate == "closed" else one.up
        return None

    async def _save(self, within: float | None = None) -> None:
        """Have what the judge remembers written: who asks waits *within* seconds at the most.

        None: a moment, and none at all for a disk that hangs already.
        """
        if self._saving is None:
            if not self._judge.unsaved:
                return
            self._saving = asyncio.create_task(self._worker.do(self._judge.save))
            within = within or LOOK_SECONDS
        saving = self._saving
        await asyncio.wait({saving}, timeout=within or 0)
        problem: str | None = "the disk hangs"
        if saving.done():
            self._saving = None if self._saving is saving else self._saving
            error = saving.exception()
            problem = str(error) if error else None
        if problem is not None and self._disk_problem is None:
            path = f"{self._config.state_dir}/health.json"
            log.warning("%s cannot be written: %s; a restart of the agent forgets", path, problem)
        self._disk_problem = problem
