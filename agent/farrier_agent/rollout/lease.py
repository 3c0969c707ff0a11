"""Who may roll something out on this host, and what is being done to it: values in, values out.

    lease = lend(state, "r-1", "alice@laptop", 60, now)     # a state with the next token
    fenced(state, token, now)                               # the lease, or RefusedError
    begun(state, token, "restart", now)                     # *acting*: nothing returns by itself

A lease has a token, a number that only grows, and is over when its time is, or with the boot that
it was lent in. What a rollout does to the host (*acting*) outlives its lease and the boot: only
``done`` ends it. Refusals say who has the lease now, and leave the state as it is.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from farrier_agent.control.errors import RefusedError
from farrier_agent.draining.record import Now
from farrier_agent.wording import clock, duration

__all__ = [
    "SCHEMA",
    "SECONDS",
    "Acting",
    "Deed",
    "Ended",
    "Lease",
    "State",
    "alive",
    "alone",
    "alone_ended",
    "begun",
    "done",
    "fenced",
    "lapsed",
    "left",
    "lend",
    "lost",
    "released",
    "renewed",
    "returns",
]

SCHEMA = 1
"""Version of the file. Within one, fields are only added; a newer one is refused."""
SECONDS = 60.0
"""Seconds that a lease is lent for where nobody says otherwise."""

Deed = Literal["restart", "converge", "reboot", "run", "driver", "gpu-reset", "gpu-diag", "unknown"]
_replace = msgspec.structs.replace


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The present lease. ``expires`` is in seconds of CLOCK_BOOTTIME of the boot ``boot_id``."""

    rollout: str
    holder: str
    token: int
    seconds: float
    boot_id: str
    expires: float
    taken_at: float


class Acting(msgspec.Struct, frozen=True, kw_only=True):
    """What ``rollout`` is doing to this host since ``since_at`` (seconds since the epoch).

    ``rollout`` is None where that was lost. ``marked``: it says itself when it is done; ``alone``
    are the replicas that the agent restarts for it without being told any more.
    """

    deed: Deed
    since_at: float
    rollout: str | None = None
    holder: str | None = None
    token: int | None = None
    marked: bool = True
    alone: tuple[str, ...] = ()


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A lease that is over, and how."""

    rollout: str
    holder: str
    token: int
    how: Literal["ran out", "was released"]
    at: float


class State(msgspec.Struct, frozen=True, kw_only=True):
    """All that is kept. ``token`` is the last one that was given; ``last`` the last lease's end."""

    schema: int = SCHEMA
    token: Annotated[int, msgspec.Meta(ge=0)] = 0
    lease: Lease | None = None
    acting: Acting | None = None
    last: Ended | None = None


# -- reading ---------------------------------------------------------------------------------------


def alive(state: State, now: Now) -> Lease | None:
    """The lease, if its time is not over."""
    lease = state.lease
    if lease is None or lease.boot_id != now.boot_id or now.boot >= lease.expires:
        return None
    return lease


def left(lease: Lease, now: Now) -> float:
    """Seconds until *lease* runs out."""
    return max(0.0, lease.expires - now.boot)


def fenced(state: State, token: int, now: Now) -> Lease:
    """The lease of *token*. Raises RefusedError when that is not the present one, or over."""
    lease = alive(state, now)
    if lease is not None and lease.token == token:
        return lease
    raise RefusedError(*_why_fenced(lapsed(state, now), token, now))


def returns(state: State, rollout: str | None, now: Now) -> bool:
    """Whether what only *rollout* drained is served again by itself."""
    lease = alive(state, now)
    return state.acting is None and (lease is None or lease.rollout != rollout)


# -- changing --------------------------------------------------------------------------------------


def lend(
    state: State,
    rollout: str,
    holder: str,
    seconds: float,
    now: Now,
    *,
    takeover: bool = False,
) -> State:
    """A lease with the next token. Raises RefusedError.

    The same *rollout* may always take it anew, which fences off who had it. Another one may not
    while it is alive; and what another one left half done here only with *takeover*, and is then
    this one's.
    """
    state = lapsed(state, now)
    old, acting = state.lease, state.acting
    if old is not None and old.rollout != rollout:
        raise RefusedError(
            f"{_has(old, now)}, for {duration(left(old, now))} more",
            f"farrier rollout show {old.rollout}",
        )
    if acting is not None and acting.rollout != rollout:
        if not takeover:
            raise RefusedError(
                f"{_half_done(acting, now)}, and its lease is over: nothing that it drained"
                " returns by itself",
                f"farrier rollout resume {acting.rollout}"
                if acting.rollout
                else "look at farrier-agent status, then take it over (--takeover)",
            )
        acting = _replace(acting, rollout=rollout, holder=holder)
    # where nothing is known of earlier ones, a clock is greater than any count
    token = state.token + 1 if state.token else max(1, int(now.epoch))
    lease = Lease(
        rollout=rollout,
        holder=holder,
        token=token,
        seconds=seconds,
        boot_id=now.boot_id,
        expires=now.boot + seconds,
        taken_at=now.epoch,
    )
    return _replace(state, token=token, lease=lease, acting=acting)


def renewed(state: State, token: int, seconds: float | None, now: Now) -> State:
    """The lease of *token* for *seconds* from now. Raises RefusedError when it is over."""
    lease = fenced(state, token, now)
    wanted = lease.seconds if seconds is None else seconds
    return _replace(state, lease=_replace(lease, seconds=wanted, expires=now.boot + wanted))


def released(state: State, token: int, now: Now) -> State:
    """Without the lease of *token*; one that was released already is. Raises RefusedError."""
    last = state.last
    if alive(state, now) is None and last and last.token == token and last.how == "was released":
        return state
    lease = fenced(state, token, now)
    return _replace(state, lease=None, last=_ended(lease, "was released", now))


def lapsed(state: State, now: Now) -> State:
    """Without a lease whose time is over."""
    if state.lease is None or alive(state, now) is not None:
        return state
    return _replace(state, lease=None, last=_ended(state.lease, "ran out", now))


def begun(state: State, token: int, deed: Deed, now: Now) -> State:
    """The rollout of *token* lays hands on the host. Raises RefusedError."""
    lease = fenced(state, token, now)
    before = state.acting
    acting = Acting(
        deed=deed,
        since_at=before.since_at if before else now.epoch,
        rollout=lease.rollout,
        holder=lease.holder,
        token=token,
        alone=before.alone if before else (),
    )
    return _replace(state, acting=acting)


def alone(state: State, token: int, replica: str, now: Now) -> State:
    """The agent restarts *replica* for the rollout of *token*, to its end. Raises RefusedError."""
    marked = state.acting is not None and state.acting.marked
    new = begun(state, token, "restart", now)
    assert new.acting is not None  # noqa: S101 - it begins with that
    replicas = (*(one for one in new.acting.alone if one != replica), replica)
    return _replace(new, acting=_replace(new.acting, marked=marked, alone=replicas))


def alone_ended(state: State, replica: str) -> State:
    """The agent is done with *replica*; the mark goes with the last one, if it was for them."""
    acting = state.acting
    if acting is None or replica not in acting.alone:
        return state
    rest = tuple(one for one in acting.alone if one != replica)
    if not rest and not acting.marked:
        return _replace(state, acting=None)
    return _replace(state, acting=_replace(acting, alone=rest))


def done(state: State, token: int | None, now: Now) -> State:
    """Nobody lays hands on the host any more. Raises RefusedError.

    Without a *token* it is a person who says so, which is for when no rollout has the lease.
    """
    if token is not None:
        fenced(state, token, now)
    elif (lease := alive(state, now)) is not None:
        raise RefusedError(
            f"{_has(lease, now)}: it is for that one to say",
            f"farrier rollout show {lease.rollout}",
        )
    return _replace(state, acting=None)


def lost(token: int, now: Now) -> State:
    """In place of a state that cannot be read: it may have been that of a rollout at work."""
    return State(token=token, acting=Acting(deed="unknown", since_at=now.epoch))


# -- words -----------------------------------------------------------------------------------------


def _ended(lease: Lease, how: Literal["ran out", "was released"], now: Now) -> Ended:
    return Ended(
        rollout=lease.rollout, holder=lease.holder, token=lease.token, how=how, at=now.epoch
    )


def _has(lease: Lease, now: Now) -> str:
    since = clock(lease.taken_at, now.epoch)
    return (
        f"{lease.holder} has the lease of this host for rollout {lease.rollout}"
        f" (token {lease.token}, since {since})"
    )


def _half_done(acting: Acting, now: Now) -> str:
    who = f"rollout {acting.rollout} ({acting.holder})" if acting.rollout else "a rollout, which is"
    what = "unknown: its state was lost" if acting.deed == "unknown" else f"acting: {acting.deed}"
    return f"{who} left this host half done ({what}, since {clock(acting.since_at, now.epoch)})"


def _why_fenced(state: State, token: int, now: Now) -> tuple[str, str]:
    """Why *token* does not count, and the next command."""
    lease, last = state.lease, state.last
    if lease is not None:
        text = f"token {token} is not the present lease's: {_has(lease, now)}"
        return f"{text}; nothing was done", f"farrier rollout show {lease.rollout}"
    if last is not None and last.token == token:
        what = (
            f"the host stays as it was left (acting: {state.acting.deed})"
            if state.acting
            else "the host takes itself back"
        )
        text = f"the lease of rollout {last.rollout} (token {token}) {last.how} at "
        text += f"{clock(last.at, now.epoch)}, and {what}; nothing was done"
        return text, f"farrier rollout resume {last.rollout}"
    return (
        f"token {token} is of no lease: nobody has one on this host now; nothing was done",
        "farrier-agent lease show",
    )
