"""With whom the NVML worker's keeper is patient, and how long: no clock in here, only times."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from farrier_agent.nvml.calling import Call

__all__ = ["BackOff", "HungGpu", "HungGpus", "Order"]


class Order(NamedTuple):
    """The ``indices`` to read, of an enumeration of ``of`` GPUs."""

    indices: tuple[int, ...]
    of: int


class BackOff:
    """When the next worker may be started: at once after the first failure, then 1, 2, 4 … 60 s."""

    def __init__(self, first: float = 1.0, longest: float = 60.0) -> None:
        self._first, self._longest = first, longest
        self._next = 0.0
        self._failures = 0

    def failed(self, now: float) -> None:
        """A worker did not give what it should."""
        self._failures += 1
        if self._failures > 1:
            wait = self._first * 2.0 ** min(self._failures - 2, 30)
            self._next = now + min(wait, self._longest)

    def succeeded(self) -> None:
        """A reading was good."""
        self._failures, self._next = 0, 0.0

    def left(self, now: float) -> float:
        """Seconds until the next one may be started."""
        return max(0.0, self._next - now)


@dataclass(frozen=True)
class HungGpu:
    """A GPU on which *call* did not return. It is left alone until ``until``, for ``wait`` s."""

    index: int
    call: Call
    until: float
    wait: float

    @property
    def words(self) -> str:
        """For a person."""
        return f"{self.call.function} did not return; tried again after {self.wait:g} s"


class HungGpus:
    """The GPUs that hang, by their index in an enumeration of ``count``.

    Each is left out for a growing time, because every try costs a worker, then tried after all
    others, so that these are read in any case.
    """

    def __init__(self, first: float = 10.0, longest: float = 600.0) -> None:
        self._first, self._longest = first, longest
        self._gpus: dict[int, HungGpu] = {}
        self._count: int | None = None

    def __iter__(self) -> Iterator[HungGpu]:
        return iter(self._gpus.values())

    def enumerated(self, count: int) -> None:
        """NVML enumerates *count* GPUs: where these are others, indices mean others too."""
        if count != self._count:
            self._gpus.clear()
            self._count = count

    def hung(self, call: Call, now: float) -> HungGpu:
        """*call* did not return."""
        before = self._gpus.get(call.gpu)
        wait = min(2 * before.wait, self._longest) if before else self._first
        self._gpus[call.gpu] = found = HungGpu(call.gpu, call, now + wait, wait)
        return found

    def answered(self, index: int) -> None:
        """That one works."""
        self._gpus.pop(index, None)

    def order(self, turn: int, now: float, read: Collection[int] = ()) -> Order | None:
        """What is to be read, without what was *read*; None while the count is not known.

        From the *turn*-th GPU on; those that hang last, where it is time to try them.
        """
        count = self._count
        if count is None:
            return None
        first = turn % count if count else 0
        left = [one for one in (*range(first, count), *range(first)) if one not in read]
        well = [one for one in left if one not in self._gpus]
        tried = [one for one in left if one in self._gpus and self._gpus[one].until <= now]
        return Order((*well, *tried), count)
