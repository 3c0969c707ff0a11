"""One reading of all GPUs while it is made, from the answers of one worker or of several."""

from __future__ import annotations

import msgspec

from farrier_agent.gpus import Gpu, Gpus
from farrier_agent.nvml import wire
from farrier_agent.nvml.patience import HungGpus

__all__ = ["Collection", "Identities", "identity"]

_IDENTITY = (
    *("uuid", "index", "name", "pci_bus_id", "serial", "vbios_version", "inforom_version"),
    *("gsp_firmware_version", "architecture", "compute_capability", "minor_number"),
)


def identity(gpu: Gpu) -> Gpu:
    """Who *gpu* is, without what was measured."""
    return Gpu(up=True, **{name: getattr(gpu, name) for name in _IDENTITY})


class Identities:
    """Who the GPUs of an enumeration are, as far as anyone said, by index."""

    def __init__(self) -> None:
        self._count: int | None = None
        self._gpus: dict[int, Gpu] = {}

    def enumerated(self, count: int) -> None:
        """NVML enumerates *count* GPUs: where these are others, indices mean others too."""
        if count != self._count:
            self._gpus.clear()
            self._count = count

    def named(self, index: int, uuid: str, pci_bus_id: str | None) -> None:
        """The worker said this before it read the GPU."""
        known = self._gpus.get(index)
        if known is None or known.uuid != uuid:
            self._gpus[index] = Gpu(uuid=uuid, index=index, up=True, pci_bus_id=pci_bus_id)

    def read(self, gpu: Gpu) -> None:
        """It was read."""
        self._gpus[gpu.index] = identity(gpu)

    def get(self, index: int) -> Gpu | None:
        """Who is at *index*."""
        return self._gpus.get(index)


class Collection:
    """What was read so far. Tells *identities* and *hung* what it learns."""

    def __init__(self, identities: Identities, hung: HungGpus) -> None:
        self._identities = identities
        self._hung = hung
        self._problems: list[str] = []
        self.head: Gpus | None = None
        self.read: dict[int, Gpu] = {}
        self.events_hang = False
        self.invalid: dict[str, int] | None = None

    def take(self, answer: wire.Answer) -> bool:
        """Take in what a worker says; True when it was the last."""
        if isinstance(answer, wire.Begun):
            self._begin(answer)
        elif isinstance(answer, wire.Named):
            self._identities.named(answer.index, answer.uuid, answer.pci_bus_id)
        elif isinstance(answer, wire.Read):
            gpu = answer.gpu
            self.read[gpu.index] = gpu
            self._identities.read(gpu)
            self._hung.answered(gpu.index)
        elif isinstance(answer, wire.Done):
            self._problems.extend(answer.gpus.problems)
            self.invalid = answer.gpus.invalid_total
            return True
        return False

    def _begin(self, answer: wire.Begun) -> None:
        count = answer.gpus.count or 0
        if self.head is not None and self.head.count != count:
            self.read.clear()  # another worker's, of other GPUs
        self.head = answer.gpus
        self._identities.enumerated(count)
        self._hung.enumerated(count)
        self.events_hang = answer.events_hang
        if answer.events_problem:
            self._problems.append(answer.events_problem)

    def problem(self, words: str) -> None:
        """Something could not be read."""
        self._problems.append(words)

    def result(self) -> Gpus | None:
        """All that is known now; None when of no GPU, though there are some.

        A GPU that was not reached is told by its name alone: that it was not read is no fault.
        """
        if self.head is None:
            return None
        devices = dict(self.read)
        names = {gpu.uuid for gpu in devices.values()}
        problems = list(self._problems)
        hangs = {one.index: one for one in self._hung}
        for index in set(range(self.head.count or 0)) - set(devices):
            known, hung = self._identities.get(index), hangs.get(index)
            if known is None or known.uuid in names:
                if hung is not None:
                    problems.append(f"GPU {index} hangs, its UUID is not known: {hung.words}")
            elif hung is not None:
                devices[index] = msgspec.structs.replace(
                    known, up=False, problem="hangs", problem_detail=hung.words
                )
            else:
                devices[index] = known
                problems.append(f"GPU {index} was not read in time")
        if self.head.count and not any(one in self.read or one in hangs for one in devices):
            return None
        return msgspec.structs.replace(
            self.head,
            devices=tuple(gpu for _, gpu in sorted(devices.items())),
            problems=tuple(problems),
        )
