"""Restarts for health: with growing pauses, and given up when they do not help. Pure.

An engine that wedges again and again has a cause that no restart removes (a broken GPU, a prompt
that kills it); restarting it for ever hides that, and costs every client of the host. The history
is kept durably: restarting the agent or the host must not forgive.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

__all__ = ["GaveUp", "History", "Limits", "Restart", "Wait", "decide", "restarted"]


class History(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a replica was restarted for health, seconds since the epoch, oldest first.

    ``given_up`` is the run of its unit (InvocationID) in which no restart was tried any more.
    """

    restarts: tuple[float, ...] = ()
    given_up: str | None = None


@dataclass(frozen=True)
class Limits:
    """At most ``most`` restarts in ``within`` seconds, the second at least ``pause`` seconds after
    the first, each further one after ``factor`` times as long.
    """

    most: int = 3
    within: float = 3600.0
    pause: float = 60.0
    factor: float = 4.0


@dataclass(frozen=True)
class Restart:
    """Restart it now; this is attempt ``number`` of those that count."""

    number: int


@dataclass(frozen=True)
class Wait:
    """Not before ``seconds`` have passed."""

    seconds: float


@dataclass(frozen=True)
class GaveUp:
    """Leave it closed; ``why`` says so to a person."""

    why: str


def decide(history: History, now: float, limits: Limits) -> Restart | Wait | GaveUp:
    """What to do with a replica that is wedged at *now*, seconds since the epoch."""
    recent = _recent(history, now, limits)
    if len(recent) >= limits.most:
        return GaveUp(
            f"wedged again after {len(recent)} restarts within {limits.within / 60:.0f} min; "
            "it stays closed until somebody looks: farrier-agent evidence, then "
            "farrier-agent restart"
        )
    if recent:
        pause = limits.pause * limits.factor ** (len(recent) - 1)
        left = recent[-1] + pause - now
        if left > 0:
            return Wait(left)
    return Restart(len(recent) + 1)


def restarted(history: History, now: float, limits: Limits) -> History:
    """*history* with a restart at *now*, without those that no longer count."""
    return History((*_recent(history, now, limits), now))


def _recent(history: History, now: float, limits: Limits) -> tuple[float, ...]:
    # a restart in the future is from before the clock was set: it counts as one of this moment
    times = sorted(min(at, now) for at in history.restarts)
    return tuple(at for at in times if now - at < limits.within)
