"""How much memory and how many CPUs a host has: HAProxy's bounds are made of it."""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api import FactBase

__all__ = ["Room", "RoomFact"]


@dataclass(frozen=True, slots=True)
class Room:
    """*memory_mib* is all of the host's memory in MiB."""

    memory_mib: int
    cpus: int


class RoomFact(FactBase[Room | None]):
    """:class:`Room`; None when the host did not answer."""

    def command(self) -> str:
        """Two processes."""
        return "sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo; nproc"

    @staticmethod
    def default() -> Room | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> Room | None:
        """KiB on the first line, CPUs on the second."""
        if len(output) < 2:
            return None
        return Room(int(output[0]) // 1024, int(output[1]))
