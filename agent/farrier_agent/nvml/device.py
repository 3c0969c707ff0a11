"""One GPU in the course of a session: who it is, and its readings in their tiers."""

from __future__ import annotations

from typing import Any

import msgspec

from farrier_agent.gpus import Gpu
from farrier_agent.nvml import fields
from farrier_agent.nvml.fields import Batch, of_driver, of_links
from farrier_agent.nvml.probe import Library, LostError, Probe
from farrier_agent.nvml.readings import (
    clocks,
    ecc,
    fabric,
    identity,
    links,
    memory,
    mig,
    pcie,
    power,
    processes,
    temperature,
)

__all__ = ["Device", "Known", "identify"]

_STATIC = (clocks.static, power.static, temperature.static, pcie.static, links.static)
_SLOW = (
    memory.slow,
    clocks.slow,
    power.slow,
    temperature.slow,
    links.slow,
    ecc.slow,
    mig.slow,
    processes.slow,
)
_FAST = (
    memory.fast,
    temperature.fast,
    power.fast,
    clocks.fast,
    pcie.fast,
    links.fast,
    ecc.fast,
    fabric.fast,
    mig.fast,
    processes.fast,
)


class Known(msgspec.Struct, frozen=True):
    """A GPU that has told who it is, for whoever registers for its events."""

    index: int
    handle: Any
    uuid: str
    pci_bus_id: str | None


class Device:
    """A GPU that has told its UUID, with the answers that need not be asked for in every reading.

    ``lost_until`` is the moment (monotonic seconds) before which it is not to be touched, None
    unless it is lost. ``expired``: it has to be identified again, since it has changed too much,
    or did not answer everything about itself.
    """

    def __init__(self, probe: Probe, known: Known, driver: tuple[int, ...]) -> None:
        self.known = known
        self.lost_until: float | None = None
        self.expired = False
        self._driver = driver
        self._lost_because = ""
        self._probe = probe
        self._identity: dict[str, Any] = {"pci_bus_id": known.pci_bus_id}
        self._constants: dict[str, Any] = {}
        self._slow_batch = Batch(probe.nvml, ())
        self._slow: dict[str, Any] = {}
        self._slow_at: float | None = None
        self._learned = False
        self._faltered = False

    def read(self, now: float, slow_every: float) -> Gpu:
        """The GPU now, with the slow tier if its last one is *slow_every* seconds old.

        Raises :class:`LostError`, also when every call on the GPU fails.
        """
        probe = self._probe
        if not self._learned:
            self._learn()
        probe.fields = probe.batch.read(probe)
        if self._slow_at is None or now >= self._slow_at:
            self._read_slow()
            self._slow_at = now + slow_every
        values = {**self._constants, **self._slow}
        for read in _FAST:
            values.update(read(probe))
        if not probe.answered:
            raise LostError("no call is answered any more: " + "; ".join(probe.problems()))
        return Gpu(
            uuid=self.known.uuid, index=self.known.index, up=True, **self._identity, **values
        )

    def problems(self) -> list[str]:
        """What went wrong since this was asked last, in lines."""
        lines = self._probe.problems()
        self._probe.begin()
        return lines

    def lose(self, because: str, until: float) -> None:
        """The GPU is lost, and not to be touched before *until*."""
        self._lost_because, self.lost_until = because, until

    def as_lost(self) -> Gpu:
        """The GPU without a value."""
        return Gpu(
            uuid=self.known.uuid,
            index=self.known.index,
            up=False,
            problem="lost",
            problem_detail=self._lost_because,
            **self._identity,
        )

    def _learn(self) -> None:
        """Ask for what does not change, and prepare the batches."""
        probe = self._probe
        self._identity.update(identity.static(probe))
        for read in _STATIC:
            self._constants.update(read(probe))
        count = probe.kept["links"]
        fast = of_driver(fields.FAST, self._driver) + of_links(fields.LINK_FAST, count)
        slow = of_driver(fields.SLOW, self._driver) + of_links(fields.LINK_SLOW, count)
        probe.batch = Batch(probe.nvml, fast)
        self._slow_batch = Batch(probe.nvml, slow)
        self._faltered = bool(probe.problems())
        self._learned = True

    def _read_slow(self) -> None:
        probe = self._probe
        probe.fields.update(self._slow_batch.read(probe))
        slow: dict[str, Any] = {}
        for read in _SLOW:
            slow.update(read(probe))
        before, self._slow = self._slow, slow
        # with MIG on, much is supported of its devices alone; without ECC nothing counts errors
        switched = any(before.get(mode) != slow[mode] for mode in ("mig_enabled", "ecc_enabled"))
        self.expired = bool(before) and (switched or self._faltered)


def identify(library: Library, index: int, driver: tuple[int, ...]) -> tuple[Device | None, Probe]:
    """The GPU at *index*, None if it does not say who it is. Raises :class:`LostError`."""
    probe = Probe(library, index)
    handle = probe.ask_of(index, "nvmlDeviceGetHandleByIndex")
    if handle is None:
        return None, probe
    probe.handle = handle
    uuid = identity.uuid(probe)
    if uuid is None:
        return None, probe
    known = Known(index, handle, uuid, identity.pci_bus_id(probe))
    return Device(probe, known, driver), probe
