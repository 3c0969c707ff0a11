"""What is kept of a replica: its state, the run of its unit that it is about, and its drain.

Fields whose names end in ``_at`` are seconds since the epoch, for people. All other times are
seconds of CLOCK_BOOTTIME: they mean something in the boot ``boot_id`` only, and a clock that is set
while a drain waits does not move its deadline.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import msgspec

__all__ = ["SCHEMA", "Asker", "Drain", "Now", "Phase", "Policy", "Record", "Source", "initial"]

SCHEMA = 1
"""Version of the file. Within one, fields are only added; a newer one is refused."""

Policy = Literal["abort", "extend", "force"]
"""What a drain does when its deadline passes: take itself back, wait on, or stop waiting."""

Source = Literal["person", "verdict", "notice", "rollout", "systemd"]
"""Who asks for a drain. Only one that a rollout alone asked for may be taken back by the agent."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")]


@dataclass(frozen=True)
class Now:
    """One moment on the clocks that records use."""

    boot_id: str
    boot: float
    epoch: float

    @classmethod
    def read(cls, proc: Path = Path("/proc")) -> Now:
        """This moment. Raises OSError where *proc* has no boot_id."""
        boot_id = (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return cls(boot_id, time.clock_gettime(time.CLOCK_BOOTTIME), time.time())


class Phase(str, Enum):
    """The states of a replica."""

    STOPPED = "stopped"
    STARTING = "starting"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    DRAINED = "drained"
    FAILED = "failed"


class Asker(msgspec.Struct, frozen=True):
    """Who asked, ``by`` in words for people (``uid 0``, ``systemd``), and why.

    ``rollout`` is the one that it was asked for, where the source is one.
    """

    by: str
    source: Source
    reason: str
    rollout: str | None = None


class Drain(msgspec.Struct, frozen=True, kw_only=True):
    """One drain, from its first asker to the end of the unit's run.

    Until ``settle_ends`` requests are still accepted; ``closed``: the gate is closed and what is in
    flight is being counted. ``quiet`` counts the looks in a row that saw nothing, the last one at
    ``looked``; ``in_flight`` is what that one saw, None when it could not see (and before the first
    one what was counted when it was asked for).
    ``in_flight_at_close`` is the first count behind the closed gate. ``ended`` is when it was
    drained. ``forced``: waiting was given up, or the engine ended meanwhile, and ``cut`` requests
    were then still in flight: the engine's end cuts them, unless the engine finishes them on
    SIGTERM. ``cut`` is None where they could not be counted. ``warm``: the replica was ready when
    it was asked for, and is so again when it is taken back; else it has to be warmed up first.
    """

    askers: tuple[Asker, ...]
    policy: Policy
    begun_at: float
    begun: float
    settle_ends: float
    deadline: float
    extensions: Count = 0
    closed: bool = False
    quiet: Count = 0
    looked: float | None = None
    in_flight: Count | None = None
    in_flight_at_close: Count | None = None
    ended: float | None = None
    forced: bool = False
    cut: Count | None = None
    warm: bool = True


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one replica, as its file has it.

    ``invocation_id`` names the run of the unit that the state is about, known since ``run_since``;
    ``engine_runs``: it was seen running, and its end was not.
    ``gate`` is what was last decided: ``opening`` becomes ``open`` once the file was made and the
    unit was seen in the same run after that. ``drain`` outside of *draining* and *drained* is one
    that a crash interrupted: it keeps the replica closed when the next run is warm.
    ``stop_began`` is when systemd began to stop the unit, which nothing can cancel; it is given up
    waiting at ``stop_cap``. ``last_drain`` is the drain that the previous run ended with.
    """

    schema: int = SCHEMA
    replica: Name
    phase: Phase
    reason: str
    by: str
    since_at: float
    boot_id: str
    invocation_id: str | None = None
    run_since: float = 0.0
    engine_runs: bool = False
    gate: Literal["closed", "opening", "open"] = "closed"
    drain: Drain | None = None
    stop_began: float | None = None
    stop_cap: float | None = None
    last_drain: Drain | None = None

    @property
    def counting(self) -> bool:
        """Somebody has to count what is in flight."""
        return self.phase is Phase.DRAINING and self.drain is not None and self.drain.closed

    @property
    def held(self) -> bool:
        """A drain that was not taken back keeps it closed, also when it is warm."""
        return self.drain is not None

    @property
    def rollouts(self) -> frozenset[str | None]:
        """The rollouts that want it drained."""
        askers = self.drain.askers if self.drain else ()
        return frozenset(one.rollout for one in askers if one.source == "rollout")

    @property
    def others(self) -> tuple[Asker, ...]:
        """Who wants it drained, and is neither a rollout nor systemd."""
        askers = self.drain.askers if self.drain else ()
        return tuple(one for one in askers if one.source not in {"rollout", "systemd"})

    @property
    def stopping(self) -> bool:
        """systemd is stopping the unit."""
        return self.stop_began is not None


def initial(replica: str, now: Now, *, gate_open: bool) -> Record:
    """The record of a replica that has none yet. An open gate was opened by an older agent."""
    return Record(
        replica=replica,
        phase=Phase.STOPPED,
        reason="not seen before",
        by="farrier-agent",
        since_at=now.epoch,
        boot_id=now.boot_id,
        gate="open" if gate_open else "closed",
    )
