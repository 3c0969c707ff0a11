"""What a cloud announces to this host, and when draining has to begin for it. No I/O here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Literal

import msgspec

__all__ = ["Looked", "Notice", "NoticeError", "Order", "http_time", "iso_time", "order"]

Kind = Literal["preempt", "stop", "reboot", "freeze", "migrate", "maintenance", "rebalance"]


class NoticeError(ValueError):
    """What a metadata service answered cannot be understood; the message names the field."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One announcement; the same ``id`` is the same announcement.

    ``at``: it happens not before this, seconds since the epoch. ``drains``: the host will be gone
    or restarted, so it has to be drained; what only slows it down for a moment is told, no more.
    ``at_once``: the cloud gives no time of its own, ``at`` is what it promises at least.
    """

    cloud: Literal["aws", "gcp", "azure"]
    kind: Kind
    id: str
    at: float
    drains: bool
    at_once: bool = False
    detail: str = ""


@dataclass(frozen=True)
class Looked:
    """What one look at a metadata service found. ``problems`` are for people: what failed, why."""

    notices: tuple[Notice, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Order:
    """Drain the host because of ``notice``, within ``seconds`` from now, and then by force."""

    notice: Notice
    seconds: float


def order(
    notices: Iterable[Notice], now: float, *, begin: float = 900.0, margin: float = 10.0
) -> Order | None:
    """The drain that *notices* ask for at *now* (seconds since the epoch), None when none does yet.

    A notice may come days ahead: draining begins *begin* seconds before its time (but at once where
    the cloud names none), and ends *margin* seconds before it, for the engine has to be stopped in
    order too. Of several the one that leaves the least time counts.
    """
    due = [one for one in notices if one.drains and (one.at_once or one.at - now <= begin)]
    if not due:
        return None
    first = min(due, key=lambda notice: (notice.at, notice.id))
    return Order(first, max(0.0, min(begin, first.at - now - margin)))


def iso_time(field: str, text: str) -> float:
    """``2026-11-21T15:00:00Z`` in seconds since the epoch. Raises NoticeError."""
    try:
        # datetime of Python 3.10 knows no Z
        when = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return when.replace(tzinfo=when.tzinfo or timezone.utc).timestamp()
    except (ValueError, OverflowError):
        raise NoticeError(f"{field} is no time: {text[:80]!r}") from None


def http_time(field: str, text: str) -> float:
    """``[Sat, ]21 Nov 2026 15:00:00 GMT`` in seconds since the epoch. Raises NoticeError."""
    try:
        when = parsedate_to_datetime(text)
        return when.replace(tzinfo=when.tzinfo or timezone.utc).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        raise NoticeError(f"{field} is no time: {text[:80]!r}") from None
