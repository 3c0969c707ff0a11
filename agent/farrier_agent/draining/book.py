"""A replica's record for one who must not fail, and what stands in for it when it cannot be had.

A full disk, a lock that a hanging process holds, or a broken record must not keep an engine from
draining: then the record goes on in memory, from the last one that was seen.
"""

from __future__ import annotations

import os
import sys

from farrier_agent.draining.events import Event, StopBegan
from farrier_agent.draining.keeping import Keeper
from farrier_agent.draining.record import Now, Record, initial
from farrier_agent.draining.states import Action, Transition, transition
from farrier_agent.draining.store import Store, StoreError
from farrier_agent.gate import Gates

__all__ = ["Book", "close", "lost", "say"]

_PRIORITIES = {"INFO": 6, "WARNING": 4, "ERROR": 3}


class Book:
    """The record of *replica* in *store*, in step with its gate in *gates*. Nothing here raises."""

    def __init__(self, replica: str, store: Store, gates: Gates) -> None:
        self._replica = replica
        self._gates = gates
        self._keeper = Keeper(store, gates)
        self._last: Record | None = None
        self._alone = False

    def read(self) -> Record | None:
        """The record; None where there is none to be had."""
        if not self._alone:
            try:
                self._last = self._keeper.look(self._replica)
            except (StoreError, OSError) as error:
                self._go_on_alone(error)
        return self._last

    def tell(self, event: Event) -> Record:
        """Apply *event*, close the gate if that follows, log what is new."""
        if not self._alone:
            try:
                step = self._keeper.tell(self._replica, event)
            except (StoreError, OSError) as error:
                self._go_on_alone(error)
            else:
                return self._said(step)
        now = Now.read()
        known = self._last or initial(self._replica, now, gate_open=True)
        step = transition(known, event, now)
        if Action.CLOSE_GATE in step.actions:
            close(self._gates, self._replica)
        return self._said(step)

    def _said(self, step: Transition) -> Record:
        if step.log:
            say(step.level, step.log)
        self._last = step.record
        return step.record

    def _go_on_alone(self, error: Exception) -> None:
        say("ERROR", f"replica {self._replica}: goes on without its record: {error}")
        self._alone = True


def lost(record: Record, stop: StopBegan) -> bool:
    """*record* is not about *stop*: it was deleted, replaced, or is of another run."""
    other = stop.invocation_id and record.invocation_id not in {None, stop.invocation_id}
    return not record.stopping or bool(other)


def close(gates: Gates, replica: str) -> None:
    """Close the gate of *replica*, or say that it cannot be closed."""
    try:
        gates.close(replica)
    except OSError as error:
        say("ERROR", f"replica {replica}: its gate cannot be closed: {error}")


def say(level: str, text: str) -> None:
    """A line for the journal, or for a person."""
    priority = f"<{_PRIORITIES[level]}>" if "JOURNAL_STREAM" in os.environ else ""
    print(f"{priority}{text}", file=sys.stderr, flush=True)
