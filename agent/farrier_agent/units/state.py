"""A unit as the agent keeps it, from systemd's properties (org.freedesktop.systemd1(5)). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from farrier_agent.collectors import CollectError
from farrier_agent.status import Unit

__all__ = ["MAX_STARTS", "Start", "UnitState", "UnitsError", "parse", "plain", "with_starts"]

MAX_STARTS = 20
"""Starts of a unit that are remembered."""

T = TypeVar("T")

Properties = Mapping[str, tuple[str, Any]]
"""Property to its D-Bus signature and value, as GetAll answers."""


class UnitsError(CollectError):
    """systemd or the bus did not do or say what it was asked for; the message says what and why."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A start of a unit's main process. ``automatic``: by systemd itself, after a failure."""

    at: float
    invocation_id: str
    automatic: bool


class UnitState(Unit, frozen=True, kw_only=True):
    """All that the agent wants to know of a unit, of one moment.

    ``restarts`` are the automatic ones since somebody last started it (NRestarts). ``started_at``
    and ``ended_at`` are of the main process, ``changed_at`` of the state. ``result`` is how it last
    ended: ``success``, ``exit-code``, ``signal``, ``oom-kill``, ``watchdog``, … ``job`` is the id
    of the job that waits or runs for it. ``needs_reload``: its file is newer than what systemd
    read. ``starts`` are those that were seen, the newest last.
    """

    restarts: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    changed_at: float | None = None
    result: str | None = None
    job: int | None = None
    needs_reload: bool = False
    starts: tuple[Start, ...] = ()


def parse(name: str, properties: Properties) -> UnitState:
    """The unit *name* from all of its properties. Raises :class:`UnitsError` that names one.

    A unit that is no service (or was not found) has no main process and no restarts.
    """
    of = _Reader(name, properties)
    return UnitState(
        name=name,
        load_state=of.text("LoadState"),
        active_state=of.text("ActiveState"),
        sub_state=of.text("SubState"),
        invocation_id=of.identity("InvocationID"),
        main_pid=of.number("MainPID", 0) or None,
        restarts=of.number("NRestarts", 0),
        started_at=of.time("ExecMainStartTimestamp"),
        ended_at=of.time("ExecMainExitTimestamp"),
        changed_at=of.time("StateChangeTimestamp"),
        result=of.text("Result", "") or None,
        job=of.job("Job"),
        needs_reload=of.truth("NeedDaemonReload"),
    )


def plain(unit: UnitState) -> Unit:
    """*unit* as ``/status`` shows it."""
    return Unit(
        name=unit.name,
        load_state=unit.load_state,
        active_state=unit.active_state,
        sub_state=unit.sub_state,
        invocation_id=unit.invocation_id,
        main_pid=unit.main_pid,
    )


class _Reader:
    def __init__(self, name: str, properties: Properties) -> None:
        self._name = name
        self._properties = properties

    def _get(self, key: str, kind: type[T], default: T | None) -> T:
        value = self._properties.get(key)
        if value is None and default is not None:
            return default
        if value is None:
            raise UnitsError(f"systemd says nothing about {key} of {self._name}")
        # a bool is an int to Python, and none to D-Bus
        if not isinstance(value[1], kind) or (kind is int and isinstance(value[1], bool)):
            raise UnitsError(
                f"{key} of {self._name} is {value[1]!r:.40}, of D-Bus type {value[0]!r:.20}"
            )
        return value[1]

    def text(self, key: str, default: str | None = None) -> str:
        return self._get(key, str, default)

    def number(self, key: str, default: int) -> int:
        return self._get(key, int, default)

    def truth(self, key: str) -> bool:
        return self._get(key, bool, False)

    def time(self, key: str) -> float | None:
        """Seconds since the epoch; systemd has microseconds, 0 for never."""
        return self.number(key, 0) / 1_000_000 or None

    def identity(self, key: str) -> str | None:
        return self._get(key, bytes, b"").hex() or None

    def job(self, key: str) -> int | None:
        """The id of ``(id, path)``, 0 for none."""
        pair = self._get(key, tuple, (0, "/"))
        if not pair or type(pair[0]) is not int:
            raise UnitsError(f"{key} of {self._name} is no job")
        return pair[0] or None


def with_starts(before: UnitState | None, now: UnitState) -> UnitState:
    """*now* with the starts that *before* knew, and one more when the main process is another one.

    The first look at a unit is no start. Starts that came and went unseen, while there was no
    connection, are in ``restarts`` only.
    """
    if before is None:
        return now
    starts = before.starts
    if now.invocation_id and now.started_at and now.started_at != before.started_at:
        # systemd counts a restart before the pause that precedes it, and begins at 0 again with a
        # start that it did not decide on itself (NRestarts, seen with 252 and 257)
        automatic = now.restarts > 0
        start = Start(at=now.started_at, invocation_id=now.invocation_id, automatic=automatic)
        starts = (*starts, start)[-MAX_STARTS:]
    return msgspec.structs.replace(now, starts=starts)
