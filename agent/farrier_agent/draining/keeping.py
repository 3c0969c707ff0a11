"""Applies what happens to a replica: under its lock, record first, then the gate.

Whoever calls this may be killed after any line. What was recorded and not done is done by the
next one (:class:`.Resumed`, :class:`.StopBegan`). All of it is I/O that may block, so it is not for
an event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import msgspec

from farrier_agent.draining.events import DrainAsked, Event, GateOpened, ReadyAsked, UnitSeen
from farrier_agent.draining.record import Asker, Drain, Now, Phase, Record, initial
from farrier_agent.draining.states import Action, Transition, transition
from farrier_agent.draining.store import Store, UnreadableError

__all__ = ["Gate", "Keeper"]


class Gate(Protocol):
    """The gates' files; :class:`farrier_agent.gate.Gates` is one. Methods raise OSError."""

    def is_open(self, name: str) -> bool | None:
        """The gate is open; None when that cannot be seen."""

    def open(self, name: str) -> bool:
        """Make the file; False when it was there."""

    def close(self, name: str) -> None:
        """Remove the file, if it is there."""


class Keeper:
    """Keeps the records of *store* and the *gates* in step. *clock* reads the moment."""

    def __init__(self, store: Store, gates: Gate, clock: Callable[[], Now] = Now.read) -> None:
        self._store = store
        self._gates = gates
        self._clock = clock

    def tell(self, replica: str, event: Event) -> Transition:
        """Apply *event*; close the gate when that is what follows.

        The other actions are the caller's, an OPEN_GATE through :meth:`open_gate`. Raises
        :class:`.StoreError` or OSError; a gate that was to be closed is closed even then, if it
        can be.
        """
        with self._store.locked(replica):
            now = self._clock()
            old = self._load(replica, now)
            if isinstance(event, DrainAsked):
                event = replace(event, gate_open=bool(self._gates.is_open(replica)))
            step = transition(old, event, now)
            self._settle(old, step, owed=_is_owed(event))
            return step

    def look(self, replica: str) -> Record:
        """The record as it is. Raises :class:`.StoreError`."""
        with self._store.locked(replica):
            return self._load(replica, self._clock())

    def open_gate(self, replica: str, read_unit: Callable[[], UnitSeen]) -> Transition:
        """Do an OPEN_GATE: make the file, read the unit again with *read_unit*, confirm or undo.

        An engine may crash, and its unit close the gate, just before the file is made: hence the
        reading after it. *read_unit* has to come back within seconds, for the lock is held. What
        it raises is raised, and the opening is left to be tried again. Raises
        :class:`.StoreError` or OSError.
        """
        with self._store.locked(replica):
            now = self._clock()
            record = self._load(replica, now)
            if record.gate != "opening":
                return Transition(record)
            self._gates.open(replica)
            try:
                unit = read_unit()
            except BaseException:
                self._gates.close(replica)
                raise
            same = (unit.active_state, unit.invocation_id) == ("active", record.invocation_id)
            event = GateOpened(record.invocation_id) if same else unit
            now = self._clock()
            step = transition(record, event, now)
            if not same:
                # also where the record knows no better: what it was opened for is gone
                self._gates.close(replica)
            self._settle(record, step)
            return step

    def _settle(self, old: Record, step: Transition, *, owed: bool = True) -> None:
        """Save, then close. A gate whose closing is *owed* is closed also when nothing is saved.

        What somebody asked for and cannot be kept is refused instead, and nothing is done of it.
        """
        try:
            if step.record != old:
                self._store.save(step.record, durable=_is_news(old, step.record))
        except BaseException:
            if owed and Action.CLOSE_GATE in step.actions:
                self._gates.close(old.replica)
            raise
        if Action.CLOSE_GATE in step.actions:
            self._gates.close(old.replica)

    def _load(self, replica: str, now: Now) -> Record:
        """The record; a first one where there is none, and a closed one in place of garbage."""
        try:
            record = self._store.load(replica)
        except UnreadableError as error:
            self._gates.close(replica)
            aside = self._store.set_aside(replica)
            record = _unknown(replica, f"{error}; it was moved to {aside}", now)
            self._store.save(record)
        if record is None:
            return initial(replica, now, gate_open=bool(self._gates.is_open(replica)))
        return record


def _is_owed(event: Event) -> bool:
    """What follows from *event* is done also where it cannot be recorded: nobody can refuse it."""
    if isinstance(event, DrainAsked | ReadyAsked):
        return event.asker.source == "verdict"
    return True


def _is_news(old: Record, new: Record) -> bool:
    """*new* says more than *old* with another count."""
    return _without_counts(old) != _without_counts(new)


def _without_counts(record: Record) -> Record:
    if record.drain is None:
        return record
    drain = msgspec.structs.replace(record.drain, quiet=0, looked=None, in_flight=None)
    return msgspec.structs.replace(record, drain=drain)


def _unknown(replica: str, why: str, now: Now) -> Record:
    """A record in place of one that cannot be read: closed, and kept so until somebody says ready.

    For the lost one may have been that of a drain which somebody asked for.
    """
    asker = Asker("farrier-agent", "verdict", f"its state is lost: {why}")
    drain = Drain(
        askers=(asker,),
        policy="extend",
        begun_at=now.epoch,
        begun=now.boot,
        settle_ends=now.boot,
        deadline=now.boot + 900,
        closed=True,
    )
    return Record(
        replica=replica,
        phase=Phase.FAILED,
        reason=asker.reason,
        by=asker.by,
        since_at=now.epoch,
        boot_id=now.boot_id,
        drain=drain,
    )
