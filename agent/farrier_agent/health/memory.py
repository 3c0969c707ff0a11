"""What is remembered from one judgement to the next."""

from __future__ import annotations

import msgspec

from farrier_agent.health.rule import Step
from farrier_agent.health.xids import Incident

__all__ = ["Key", "Known", "Mark", "Memory", "Trail", "answer_key"]

Key = tuple[str, str | None, str | None]
"""Rule, uuid of a GPU or None, name of a replica or None."""


class Known(msgspec.Struct, frozen=True):
    """A GPU that was seen: its index in the last complete enumeration, and where it is."""

    index: int
    pci_bus_id: str | None = None


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A fault: on its way (``holds`` false), or one that holds.

    ``since_at`` is when it was first found, seconds since the epoch. ``step`` and ``by`` are as
    :class:`.Found` has them. ``confirmed``: a reset or reboot was seen since it was last found.
    ``streak`` looks in a row speak for a change, over ``lasted`` seconds, the last one at
    ``looked`` (monotonic); of these nothing is kept on the disk.
    """

    rule: str
    gpu: str | None = None
    replica: str | None = None
    holds: bool = False
    text: str
    step: Step | None = None
    by: str = ""
    since_at: float
    confirmed: bool = False
    streak: int = 0
    lasted: float = 0.0
    looked: float = 0.0

    @property
    def key(self) -> Key:
        """What it is about."""
        return (self.rule, self.gpu, self.replica)


class Trail(msgspec.Struct, frozen=True):
    """Counters of a GPU at its last reading, to see what they did since."""

    monotonic: float
    energy: float | None = None
    clocks: dict[str, float] = {}
    link_recoveries: int | None = None
    link_crc: int | None = None


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """All that is remembered.

    ``answered`` are the moments up to which a rule's events no longer count, by
    :func:`answer_key`; ``renewed`` those up to which none of a GPU's do, for it was reset.
    ``incidents`` are bursts of fatal XIDs of a GPU, ``crashes`` those of programs. ``links`` are
    the NVLinks of a GPU that were seen up. ``read`` is when the last reading of the GPUs was made
    (monotonic), None before the first one of this run.
    """

    boot_id: str = ""
    marks: dict[Key, Mark] = {}
    known: dict[str, Known] = {}
    answered: dict[str, float] = {}
    renewed: dict[str, float] = {}
    incidents: dict[str, tuple[Incident, ...]] = {}
    crashes: dict[str, tuple[Incident, ...]] = {}
    links: dict[str, tuple[int, ...]] = {}
    trails: dict[str, Trail] = {}
    read: float | None = None


def answer_key(rule: str, gpu: str | None) -> str:
    """The key of *rule* and *gpu* in ``answered``."""
    return f"{rule} {gpu or ''}"
