"""What no rollout wants closed any more serves again: its operator's machine may be gone for good.

Only what rollouts alone drained, and only where none is at work on the host (*acting*).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from farrier_agent.control.errors import ControlError
from farrier_agent.draining.events import ReadyAsked
from farrier_agent.draining.record import Asker, Now, Record
from farrier_agent.rollout import lease as rules
from farrier_agent.rollout.audit import AuditLine
from farrier_agent.rollout.lease import Acting, State
from farrier_agent.serving.house import House, OfReplica
from farrier_agent.serving.leases import BY, Leases

__all__ = ["Returning"]

log = logging.getLogger("farrier-agent")

EVERY = 1.0
"""Seconds between two looks at the lease."""
AGAIN = 10.0
"""Seconds until a lease that cannot be read or kept is tried again."""


class Returning:
    """Ends leases whose time is over, and gives back what they drained in *house*.

    *unwell* says of a replica why it is not to serve by itself, None when it may.
    """

    def __init__(self, leases: Leases, house: House, unwell: Callable[[str], str | None]) -> None:
        self._leases = leases
        self._house = house
        self._unwell = unwell
        self._stuck: Acting | None = None
        self._told: dict[str, str] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self._leases.do(self._look)
            except ControlError as error:
                log.debug("the lease: %s", error)  # it is in the journal already
                await asyncio.sleep(AGAIN)
            await asyncio.sleep(EVERY)

    async def _look(self, state: State, now: Now) -> None:
        lapsed = rules.lapsed(state, now)
        if lapsed != state:
            await self._leases.keep(lapsed)
            await self._say_over(lapsed)
        if lapsed.acting is not None and lapsed.lease is None:
            self._say_stuck(lapsed.acting)
        for one in self._house.replicas.values():
            record = one.life.record
            if record is None or record.stopping:
                continue
            for rollout in record.rollouts:
                if rules.returns(lapsed, rollout, now):
                    await self._give_back(one, record, rollout)

    async def _give_back(self, one: OfReplica, record: Record, rollout: str | None) -> None:
        name = one.life.name
        why = None if record.others else self._unwell(name)
        if why is not None:
            if self._told.get(name) != why:
                self._told[name] = why
                log.warning(
                    "replica %s: rollout %s holds it no more, and it is not taken back: %s;"
                    " next: farrier-agent ready %s",
                    *(name, rollout, why, name),
                    extra={"replica": name, "cause": "rollout"},
                )
            return
        self._told.pop(name, None)
        reason = f"rollout {rollout} has no lease of this host any more"
        step = await one.life.try_to_tell(ReadyAsked(Asker(BY, "rollout", reason, rollout)))
        if step is None or step.refused:
            return
        kept = "failed: kept closed, for others want it" if step.record.held else "done"
        await self._leases.note(
            AuditLine(
                at=Now.read().epoch,
                by=BY,
                verb="take back",
                outcome=kept,
                replicas=(name,),
                rollout=rollout,
                reason=reason,
            )
        )

    async def _say_over(self, state: State) -> None:
        last = state.last
        if last is None:
            return
        what = "what it drained stays closed" if state.acting else "what it drained is taken back"
        log.warning(
            "the lease of rollout %s (%s, token %d) %s: %s",
            *(last.rollout, last.holder, last.token, last.how, what),
            extra={"cause": "rollout"},
        )
        line = AuditLine(
            at=last.at,
            by=BY,
            holder=last.holder,
            verb="lease",
            outcome=f"done: it {last.how}; {what}",
            rollout=last.rollout,
            token=last.token,
        )
        await self._leases.note(line)

    def _say_stuck(self, acting: Acting) -> None:
        """Once for each deed: somebody has to look at this host."""
        if acting == self._stuck:
            return
        self._stuck = acting
        log.error(
            "rollout %s left this host half done (acting: %s) and has no lease any more: what it"
            " drained stays closed; next: farrier rollout resume %s, or farrier-agent act done,"
            " after which it is served again",
            *(acting.rollout or "unknown", acting.deed, acting.rollout or "ID"),
            extra={"cause": "rollout"},
        )
