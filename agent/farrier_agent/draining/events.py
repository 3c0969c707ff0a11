"""What can happen to a replica. The moment at which it happens is told beside the event."""

from __future__ import annotations

from dataclasses import dataclass

from farrier_agent.draining.record import Asker, Policy

__all__ = [
    "DrainAsked",
    "Event",
    "GateOpened",
    "GaveUp",
    "Looked",
    "ReadyAsked",
    "Resumed",
    "StopBegan",
    "Ticked",
    "UnitSeen",
    "WarmUpFailed",
    "WarmedUp",
]


@dataclass(frozen=True)
class UnitSeen:
    """systemd was asked for the unit, or said of itself that it changed.

    The values are those of ``systemctl show``; ``read_at`` is when systemd was asked, in seconds of
    CLOCK_BOOTTIME. The same one may be told again and again.
    """

    active_state: str
    sub_state: str
    invocation_id: str | None
    read_at: float
    result: str = "success"


@dataclass(frozen=True)
class WarmedUp:
    """Warm-up went through in the run *invocation_id*."""

    invocation_id: str | None


@dataclass(frozen=True)
class WarmUpFailed:
    """Warm-up gave up in the run *invocation_id*."""

    invocation_id: str | None
    reason: str


@dataclass(frozen=True)
class GateOpened:
    """The gate's file was made, and after that the unit was still in the run *invocation_id*."""

    invocation_id: str | None


@dataclass(frozen=True)
class DrainAsked:
    """A drain is asked for: *settle* and *seconds* (to its deadline) count from now.

    *in_flight* are the requests at this moment, as far as they were counted. *gate_open*: the
    gate's file is there, whatever the record says; the keeper looks.
    """

    asker: Asker
    settle: float = 3.0
    seconds: float = 900.0
    policy: Policy = "extend"
    in_flight: int | None = None
    gate_open: bool = False


@dataclass(frozen=True)
class ReadyAsked:
    """A drain is to be taken back, or a replica that failed its warm-up tried again.

    A rollout takes back what rollouts asked for (only the one of ``asker``, where it names one),
    and who asks for his ``own`` drain what ``asker`` asked for, in the same words. Where others
    want the drain too, the replica then stays drained for those.
    """

    asker: Asker
    own: bool = False


@dataclass(frozen=True)
class StopBegan:
    """``ExecStop=`` began in the run *invocation_id*; *cap* seconds from now nobody waits longer.

    *policy* is ``extend`` (wait until the cap) or ``force`` (until *seconds* from now).
    *in_flight* is as in :class:`DrainAsked`.
    """

    invocation_id: str | None
    settle: float = 0.0
    seconds: float = 900.0
    policy: Policy = "extend"
    cap: float = 1380.0
    in_flight: int | None = None


@dataclass(frozen=True)
class Looked:
    """The requests in flight were counted; None when they could not be."""

    in_flight: int | None


@dataclass(frozen=True)
class GaveUp:
    """Whoever waited for a drain waits no longer: *why*."""

    why: str


@dataclass(frozen=True)
class Ticked:
    """Time went by."""


@dataclass(frozen=True)
class Resumed:
    """The agent started: whatever a dead one had decided but not yet done is to be done."""


Event = (
    UnitSeen
    | WarmedUp
    | WarmUpFailed
    | GateOpened
    | DrainAsked
    | ReadyAsked
    | StopBegan
    | Looked
    | GaveUp
    | Ticked
    | Resumed
)
