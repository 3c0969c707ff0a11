"""The lease of this host, and copies of ledgers, for whoever asks over the control socket."""

from __future__ import annotations

import logging
import time

from farrier_agent.control import protocol
from farrier_agent.control.errors import RefusedError
from farrier_agent.control.peer import Asker as Peer
from farrier_agent.control.protocol import Final, Ledgers
from farrier_agent.draining.record import Now
from farrier_agent.rollout import lease as rules
from farrier_agent.rollout.audit import AuditLine
from farrier_agent.rollout.lease import State
from farrier_agent.rollout.ledgers import LedgerShelf
from farrier_agent.serving.leases import Leases

__all__ = ["RolloutRequests"]

log = logging.getLogger("farrier-agent")


class RolloutRequests:
    """The verbs lease and ledger."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._shelf = LedgerShelf(leases.directory / "ledgers")

    # -- the lease -------------------------------------------------------------------------------

    async def lease(self, request: protocol.Lease, asker: Peer) -> Final:
        """Take, renew, release or show it."""

        async def work(state: State, now: Now) -> Final:
            token = request.token
            match request.action:
                case "take":
                    assert request.rollout is not None  # noqa: S101 - the request is checked
                    new = rules.lend(
                        state,
                        request.rollout,
                        request.holder,
                        request.seconds or rules.SECONDS,
                        now,
                        takeover=request.takeover,
                    )
                    await self._leases.keep(new)
                    self._say("%s has the lease", new)
                case "renew" if token is not None:
                    # it is over with the boot: what a power cut could lose is worth nothing
                    new = rules.renewed(state, token, request.seconds, now)
                    await self._leases.keep(new, durable=False)
                case "release" if token is not None:
                    new = rules.released(state, token, now)
                    if new != state:
                        await self._leases.keep(new)
                        self._say("%s gave the lease back", state)
                case _:
                    pass
            return self._leases.told()

        if request.action == "show":
            return await self._leases.do(work)
        line = AuditLine(
            at=time.time(),
            by=asker.user,
            holder=request.holder or None,
            verb=f"lease {request.action}",
            outcome="",
            rollout=request.rollout,
            token=request.token,
        )
        quiet = request.action == "renew"
        return await self._leases.noted(line, self._leases.do(work), quiet=quiet)

    def _say(self, what: str, state: State) -> None:
        if (lease := state.lease) is not None:
            log.info(
                f"rollout %s: {what} of this host (token %d)",
                *(lease.rollout, lease.holder, lease.token),
                extra={"cause": "rollout"},
            )

    # -- ledgers ---------------------------------------------------------------------------------

    async def ledger(self, request: protocol.Ledger, asker: Peer, content: bytes) -> Final:
        """Keep a copy of a ledger, hand one out, or say which there are."""
        worker, shelf, name = self._leases.worker, self._shelf, request.id or ""
        if request.action == "list":
            return Ledgers(ledgers=await worker.do(shelf.all))
        if request.action == "get":
            return Ledgers(ledgers=(await worker.do(lambda: shelf.get(name)),))

        async def work(state: State, now: Now) -> Final:
            assert request.token is not None  # noqa: S101 - the request is checked
            lease = rules.fenced(state, request.token, now)
            if lease.rollout != name:
                raise RefusedError(
                    f"token {request.token} is of rollout {lease.rollout}, and the ledger is"
                    f" {name}; nothing was done",
                    "farrier-agent ledger list",
                )
            return Ledgers(ledgers=(await worker.do(lambda: shelf.put(name, content)),))

        line = AuditLine(
            at=time.time(),
            by=asker.user,
            verb="ledger put",
            outcome="",
            rollout=name,
            token=request.token,
        )
        return await self._leases.noted(line, self._leases.do(work), quiet=True)
