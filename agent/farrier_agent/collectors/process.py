"""Whose processes hold the GPUs: systemd's units, and which of them belong there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from farrier_agent.collectors import CollectError
from farrier_agent.collectors.blocking import BlockedError, Blocking
from farrier_agent.config import Member, Replica
from farrier_agent.gpus import Gpu, GpuProcess, Gpus, UnitOnGpu
from farrier_agent.procfs import Process, look

__all__ = ["HOUSEHOLD", "Attributed", "ProcessCollector", "ProcessError", "attribute"]

HOUSEHOLD = frozenset(
    {
        "farrier-agent.service",
        "nvidia-persistenced.service",
        "nvidia-fabricmanager.service",
        "nvidia-dcgm.service",
        "nvidia-mps.service",
    }
)
"""Units that are no replica's and no strangers either."""
MAX_LOOKS = 2000
"""Processes that are looked at in one go; more are no list of processes any more."""

_replace = msgspec.structs.replace


class ProcessError(CollectError):
    """The processes on the GPUs could not be looked at; the message says why."""


class Attributed(NamedTuple):
    """The GPUs with whose processes they have, and what each unit holds.

    ``unknown`` are (uuid, pid) that NVML tells and the host does not have.
    """

    gpus: Gpus
    units: tuple[UnitOnGpu, ...]
    unknown: frozenset[tuple[str, int]] = frozenset()


def attribute(
    gpus: Gpus,
    replicas: Iterable[Replica | Member],
    look: Callable[[int], Process | None],
    household: Collection[str] = HOUSEHOLD,
) -> Attributed:
    """Say of each process in *gpus* which unit it is of, and whether it belongs there.

    A process that the host does not have is left out: it has just ended, or the driver's list has
    another layout than the library's (535, XuehaiPan/nvitop#181), or it is of another PID
    namespace.
    """
    allowed = _allowed(replicas)
    seen: dict[int, Process | None] = {}
    devices: list[Gpu] = []
    units: list[UnitOnGpu] = []
    unknown: set[tuple[str, int]] = set()
    for gpu in gpus.devices:
        if gpu.processes is None:
            devices.append(gpu)
            continue
        found = []
        for one in gpu.processes:
            if one.pid not in seen and len(seen) < MAX_LOOKS:
                seen[one.pid] = look(one.pid) if one.pid > 0 else None
            process = seen.get(one.pid)
            if process is None:
                unknown.add((gpu.uuid, one.pid))
            else:
                found.append(_told(one, process, gpu.index, allowed, household))
        devices.append(_replace(gpu, processes=tuple(found)))
        units += _units(gpu, found)
    return Attributed(_replace(gpus, devices=tuple(devices)), tuple(units), frozenset(unknown))


def _allowed(replicas: Iterable[Replica | Member]) -> dict[str, frozenset[int]]:
    return {replica.unit: frozenset(replica.gpus) for replica in replicas}


def _told(
    one: GpuProcess,
    process: Process,
    index: int,
    allowed: Mapping[str, Collection[int]],
    household: Collection[str],
) -> GpuProcess:
    managed: bool | None = index in allowed.get(process.unit or "", ())
    if process.unit in household:
        managed = None
    return _replace(one, unit=process.unit, managed=managed, command=process.command)


@dataclass
class _Held:
    managed: bool
    memory: dict[int, int | None] = field(default_factory=dict)

    def add(self, one: GpuProcess) -> None:
        # a process that computes and draws is in two lists, with all of its memory in each
        before = self.memory.get(one.pid)
        self.memory[one.pid] = max(
            (size for size in (before, one.memory_bytes) if size is not None), default=None
        )


def _units(gpu: Gpu, processes: Sequence[GpuProcess]) -> Iterator[UnitOnGpu]:
    found: dict[str, _Held] = {}
    for one in processes:
        if one.unit is not None:
            found.setdefault(one.unit, _Held(one.managed is not False)).add(one)
    for unit, held in sorted(found.items()):
        sizes = [size for size in held.memory.values() if size is not None]
        yield UnitOnGpu(
            uuid=gpu.uuid,
            unit=unit,
            processes=len(held.memory),
            # of one that is not told no sum is known
            memory_bytes=sum(sizes) if len(sizes) == len(held.memory) else None,
            managed=held.managed,
        )


class ProcessCollector:
    """Looks at the processes on the GPUs in procfs at *proc_root*."""

    def __init__(self, proc_root: Path, replicas: Sequence[Replica | Member]) -> None:
        self._proc_root = proc_root
        self._replicas = tuple(replicas)
        self._thread = Blocking("process")
        self._unknown: frozenset[tuple[str, int]] = frozenset()

    async def collect(self, gpus: Gpus | None, deadline: float) -> Attributed:
        """:func:`attribute` for *gpus*, within *deadline* seconds. Raises :class:`ProcessError`.

        A process that the host does not have twice in a row is a problem; once, it has just ended.
        """
        if gpus is None:
            raise ProcessError("the processes on the GPUs are not known: NVML could not be read")
        work = partial(attribute, gpus, self._replicas, partial(look, proc=self._proc_root))
        try:
            found = await self._thread.run(work, deadline)
        except BlockedError as error:
            raise ProcessError(f"{self._proc_root} cannot be read: {error}") from error
        again = self._unknown & found.unknown
        self._unknown = found.unknown
        problems = tuple(_problem(gpu, again) for gpu in gpus.devices if _of(gpu, again))
        if problems:
            told = _replace(found.gpus, problems=(*found.gpus.problems, *problems))
            return found._replace(gpus=told)
        return found


def _of(gpu: Gpu, unknown: Collection[tuple[str, int]]) -> list[int]:
    return sorted(pid for uuid, pid in unknown if uuid == gpu.uuid)


def _problem(gpu: Gpu, unknown: Collection[tuple[str, int]]) -> str:
    pids = _of(gpu, unknown)
    shown = ", ".join(map(str, pids[:5])) + (f" and {len(pids) - 5} more" if len(pids) > 5 else "")
    return (
        f"GPU {gpu.index}: NVML lists processes that this host does not have ({shown}): they are in"
        " another PID namespace, or driver and NVML library do not fit together"
    )
