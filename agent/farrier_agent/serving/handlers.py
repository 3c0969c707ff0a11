"""What the agent does for whoever asks over the control socket."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import aclosing
from typing import TypeVar

import msgspec

from farrier_agent import status
from farrier_agent.config import AgentConfig
from farrier_agent.control import protocol
from farrier_agent.control.errors import ControlError, RefusedError
from farrier_agent.control.peer import Asker as Peer
from farrier_agent.control.protocol import Audited, Bundle, Done, Final, Report, Told
from farrier_agent.control.server import Tell
from farrier_agent.draining.events import DrainAsked, ReadyAsked, StopBegan
from farrier_agent.draining.record import Phase
from farrier_agent.hardware import Hardware
from farrier_agent.rollout.audit import AuditLine
from farrier_agent.rollout.lease import Lease
from farrier_agent.serving.acting import ActError
from farrier_agent.serving.acts import Acts
from farrier_agent.serving.asked import (
    Begun,
    BegunRestart,
    all_of,
    asker_of,
    drained,
    restarted,
    served,
    told,
    told_one,
)
from farrier_agent.serving.fingerprints import Fingerprints
from farrier_agent.serving.following import follow
from farrier_agent.serving.house import House, OfReplica
from farrier_agent.serving.leases import Leases
from farrier_agent.serving.life import boottime
from farrier_agent.serving.restarting import Restarts
from farrier_agent.serving.results import result
from farrier_agent.serving.rollouts import RolloutRequests

__all__ = ["Requests"]

T = TypeVar("T")


class Requests:
    """The handlers of the control socket, for *house*. *snapshot* gives the present status."""

    def __init__(
        self,
        config: AgentConfig,
        house: House,
        restarts: Restarts,
        snapshot: Callable[[], status.Status],
        *,
        hardware: Hardware,
        leases: Leases,
        fingerprints: Fingerprints,
    ) -> None:
        self._config = config
        self._house = house
        self._restarts = restarts
        self._snapshot = snapshot
        self._hardware = hardware
        self._leases = leases
        self._fingerprints = fingerprints
        self._acts = Acts(config, house, restarts, leases)
        self._rollouts = RolloutRequests(leases)

    async def status(self, request: protocol.Status, asker: Peer, tell: Tell) -> Final:  # noqa: ARG002
        """The present snapshot."""
        return Report(status=self._snapshot())

    async def drain(self, request: protocol.Drain, asker: Peer, tell: Tell) -> Final:
        """Drain, and wait for it where that is wanted."""
        ones = self._house.named(request.replicas, every=request.all)
        line = self._line("drain", request, asker, ones)

        async def begin(lease: Lease | None) -> tuple[Begun, ...]:
            if request.wait:
                await self._leases.note(line)
            event = self._drain_asked(request, asker, lease, "a drain was asked for")
            return await all_of(told_one(one, event) for one in ones)

        async def drains() -> Final:
            begun = await self._leases.for_rollout(request.token, begin)
            return Done(results=await all_of(drained(it, tell, wait=request.wait) for it in begun))

        return await self._leases.noted(line, drains())

    async def stopping(self, request: protocol.Stopping, asker: Peer, tell: Tell) -> Final:  # noqa: ARG002
        """Drain for systemd, which waits for it."""
        (one,) = self._house.named((request.replica,))
        begun = boottime()
        event = StopBegan(
            request.invocation_id,
            settle=self._config.settle_seconds,
            seconds=request.deadline,
            policy=request.on_deadline,
            cap=request.cap,
        )
        step = await told(one, event)
        before = step.record.drain.in_flight if step.record.drain else None
        record = await follow(one, tell, lambda record: record.phase is not Phase.DRAINING)
        return Done(results=(result(record, begun, in_flight=before),))

    async def ready(self, request: protocol.Ready, asker: Peer, tell: Tell) -> Final:
        """Take drains back."""
        ones = self._house.named(request.replicas, every=request.all)
        line = self._line("ready", request, asker, ones)

        async def begin(lease: Lease | None) -> tuple[Begun, ...]:
            by = asker_of(request, asker, lease, "ready was asked for")
            # whoever has the lease speaks for all rollouts, as after a takeover
            event = ReadyAsked(msgspec.structs.replace(by, rollout=None))
            return await all_of(told_one(one, event) for one in ones)

        async def readies() -> Final:
            begun = await self._leases.for_rollout(request.token, begin)
            for it in begun:
                # a rollout only takes back what it asked for itself
                if request.token is None and not it.step.refused:
                    self._hardware.overruled(it.one.life.name)
            return Done(results=await all_of(served(it, tell, wait=request.wait) for it in begun))

        return await self._leases.noted(line, readies())

    async def restart(self, request: protocol.Restart, asker: Peer, tell: Tell) -> Final:
        """Drain, restart the unit, warm up."""
        ones = self._house.named(request.replicas, every=request.all)
        line = self._line("restart", request, asker, ones)

        async def begin(lease: Lease | None) -> list[BegunRestart]:
            if request.wait:
                await self._leases.note(line)
            event = self._drain_asked(request, asker, lease, "a restart was asked for")
            return [self._begin_restart(one, event, request.token) for one in ones]

        async def restarts() -> Final:
            begun = await self._leases.for_rollout(request.token, begin)
            works = (restarted(it, tell, wait=request.wait) for it in begun)
            return Done(results=await all_of(works))

        return await self._leases.noted(line, restarts())

    def _begin_restart(self, one: OfReplica, event: DrainAsked, token: int | None) -> BegunRestart:
        try:
            task = self._restarts.begin(one, event, token)
        except RefusedError as error:
            return BegunRestart(one, boottime(), one.looker.in_flight, refused=str(error))
        return BegunRestart(one, boottime(), one.looker.in_flight, task)

    async def evidence(self, request: protocol.Evidence, asker: Peer, tell: Tell) -> Final:  # noqa: ARG002
        """Have root's program keep evidence."""
        self._house.named((request.replica,))
        why = f"{request.reason or 'asked for'} ({asker})"
        try:
            bundle = await self._house.actor.evidence(request.replica, why)
        except ActError as error:
            raise ControlError(error.text, error.next) from error
        return Bundle(path=str(bundle.path), size_bytes=bundle.size)

    async def fingerprint(self, request: protocol.Fingerprint, asker: Peer, tell: Tell) -> Final:
        """Record what the host is made of, or compare with it."""
        ones = self._house.named(request.replicas, every=not request.replicas)
        if request.action != "record":
            return await self._fingerprints.answer(request, ones, self._snapshot, tell)
        line = AuditLine(at=time.time(), by=asker.user, verb="fingerprint record", outcome="")
        work = self._fingerprints.answer(request, ones, self._snapshot, tell)
        return await self._leases.noted(line, work)

    async def journal(self, request: protocol.Journal, asker: Peer, tell: Tell) -> Final:  # noqa: ARG002
        """Tell what the agent logged."""
        from farrier_agent.control.entries import entries  # noqa: PLC0415 - only for this verb

        if request.replica is not None:
            self._house.named((request.replica,))
        read = entries(request.replica, request.lines, follow=request.follow)
        async with aclosing(read):  # its journalctl ends with it
            async for entry in read:
                await tell(entry)
        return Done()

    async def ack(self, request: protocol.Ack, asker: Peer, tell: Tell) -> Final:  # noqa: ARG002
        """Clear what is latched."""
        why = f" ({request.reason})" if request.reason else ""

        async def work() -> Final:
            who = f"{asker.user}{why}"
            return Told(lines=await self._hardware.ack(request.rule, request.gpu, who))

        verb = " ".join(filter(None, ("ack", request.rule, request.gpu)))
        line = AuditLine(
            at=time.time(), by=asker.user, verb=verb, outcome="", reason=request.reason or None
        )
        return await self._leases.noted(line, work())

    async def nvml(self, request: protocol.Nvml, asker: Peer, tell: Tell) -> Final:  # noqa: ARG002
        """Let go of the GPUs' driver, or take it up again."""

        async def work() -> Final:
            if request.action == "release":
                return Told(lines=await self._hardware.release(request.seconds, asker.user))
            return Told(lines=await self._hardware.acquire(asker.user))

        verb = f"nvml {request.action}"
        line = AuditLine(at=time.time(), by=asker.user, verb=verb, outcome="")
        return await self._leases.noted(line, work())

    async def lease(self, request: protocol.Lease, asker: Peer, tell: Tell) -> Final:  # noqa: ARG002
        """Take, renew, release or show the lease of a rollout."""
        return await self._rollouts.lease(request, asker)

    async def act(self, request: protocol.Act, asker: Peer, tell: Tell) -> Final:
        """Let a rollout lay hands on the host."""
        return await self._acts.act(request, asker, tell)

    async def audit(self, request: protocol.Audit, asker: Peer, tell: Tell) -> Final:  # noqa: ARG002
        """What was done to this host, after what root did without the agent."""
        if request.note:
            if asker.uid != 0:
                raise RefusedError("only root may add to the audit", "the same with sudo")
            line = AuditLine(
                at=time.time(),
                by=asker.user,
                holder=request.holder or None,
                verb=request.note,
                outcome="done",
                rollout=request.rollout,
            )
            await self._leases.note(line)
        return Audited(lines=await self._leases.audit(request.lines))

    async def ledger(
        self,
        request: protocol.Ledger,
        asker: Peer,
        tell: Tell,  # noqa: ARG002
        content: bytes,
    ) -> Final:
        """Keep a copy of a ledger, or hand one out."""
        return await self._rollouts.ledger(request, asker, content)

    # -- all of them ---------------------------------------------------------------------------

    def _drain_asked(
        self,
        request: protocol.Drain | protocol.Restart,
        asker: Peer,
        lease: Lease | None,
        reason: str,
    ) -> DrainAsked:
        config = self._config
        seconds = config.drain_seconds if request.deadline is None else request.deadline
        return DrainAsked(
            asker_of(request, asker, lease, reason),
            settle=config.settle_seconds,
            seconds=seconds,
            policy=request.on_deadline or config.drain_policy,
        )

    def _line(
        self,
        verb: str,
        request: protocol.Drain | protocol.Ready | protocol.Restart,
        asker: Peer,
        ones: list[OfReplica],
    ) -> AuditLine:
        return AuditLine(
            at=time.time(),
            by=asker.user,
            holder=request.holder or None,
            verb=verb,
            outcome="begun",
            replicas=tuple(one.life.name for one in ones),
            token=request.token,
            reason=request.reason or None,
        )
