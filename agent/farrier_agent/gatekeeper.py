"""Does with the gates what :func:`farrier_agent.gate.decide` says, and keeps the record."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from farrier_agent.collectors import CollectError
from farrier_agent.gate import Gates, Opened, Step, decide
from farrier_agent.status import Unit

__all__ = ["Gatekeeper"]

log = logging.getLogger("farrier-agent")

ReadUnits = Callable[[Sequence[str]], Awaitable[tuple[Unit, ...]]]


class Gatekeeper:
    """Opens the gates of replicas that answer. *read_units* asks systemd for the state of units."""

    def __init__(self, gates: Gates, read_units: ReadUnits) -> None:
        self.gates = gates
        self._read_units = read_units
        try:
            self._openings = gates.recorded()
        except (OSError, ValueError) as error:
            log.warning("the record of opened gates is lost, starting a new one: %s", error)
            self._openings = {}

    async def tend(self, name: str, unit: Unit, *, answering: bool) -> str | None:
        """Take the next step for the gate of replica *name*.

        Returns why the gate of an answering replica is not open, None when it is or when the
        replica does not answer.
        """
        try:
            return await self._tend(name, unit, answering)
        except OSError as error:
            return f"its gate cannot be opened: {error.filename}: {error.strerror}"
        except CollectError as error:
            # the opening stays unconfirmed: the next look confirms it or takes it back
            return f"its gate was opened, but not confirmed: {error}"

    async def _tend(self, name: str, unit: Unit, answering: bool) -> str | None:
        gate_open = self.gates.is_open(name)
        if gate_open is None:
            return f"its gate {self.gates.path(name)} cannot be seen"
        opened = self._openings.get(name)
        step = decide(unit, answering=answering, gate_open=gate_open, opened=opened)
        if step is Step.OPEN:
            return await self._open(name, unit)
        if step is Step.CONFIRM:
            self._keep(name, unit, "confirmed")
        elif step is Step.ADOPT:
            self._keep(name, unit, "confirmed")
            log.info("replica %s: its gate is open, not by this agent", name)
        elif step is Step.CLOSE_AGAIN:
            self._take_back(name)
        elif answering and not gate_open:
            path = self.gates.path(name)
            return f"its gate was closed by hand since the engine started; to open: touch {path}"
        return None

    async def _open(self, name: str, unit: Unit) -> str | None:
        # on record first: an agent killed in between must know that an opening was under way;
        # and again after it: a gate that then is closed was closed by somebody else
        self._keep(name, unit, "begun")
        if not self.gates.open(name):
            return None
        self._keep(name, unit, "opened")
        (now,) = await self._read_units([unit.name])
        if now.active and now.same_run(unit):
            self._keep(name, unit, "confirmed")
            log.info("replica %s: answers, gate opened", name)
            return None
        self._take_back(name)
        return "its engine ended while its gate was being opened"

    def _take_back(self, name: str) -> None:
        self.gates.close(name)
        self._openings.pop(name, None)
        self.gates.record(self._openings)
        log.warning("replica %s: its engine ended while its gate was opened; closed again", name)

    def _keep(self, name: str, unit: Unit, stage: Literal["begun", "opened", "confirmed"]) -> None:
        assert unit.invocation_id is not None  # noqa: S101 - decide() lets no other pass
        self._openings[name] = Opened(unit.invocation_id, unit.main_pid, stage)
        self.gates.record(self._openings)
