"""What the agent does for whoever asks over the control socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing

from farrier_agent import status
from farrier_agent.config import AgentConfig
from farrier_agent.control import protocol
from farrier_agent.control.errors import ControlError, UsageError
from farrier_agent.control.peer import Asker as Peer
from farrier_agent.control.protocol import Bundle, Done, Final, Report, Result, Told
from farrier_agent.control.server import Tell
from farrier_agent.draining.events import DrainAsked, Event, ReadyAsked, StopBegan
from farrier_agent.draining.record import Asker, Phase, Record
from farrier_agent.draining.states import Transition
from farrier_agent.draining.store import StoreError
from farrier_agent.hardware import Hardware
from farrier_agent.serving.acting import ActError
from farrier_agent.serving.following import follow, progress
from farrier_agent.serving.house import House, OfReplica
from farrier_agent.serving.life import boottime
from farrier_agent.serving.restarting import Restarts

__all__ = ["Requests"]


class Requests:
    """The handlers of the control socket, for *house*. *snapshot* gives the present status."""

    def __init__(
        self,
        config: AgentConfig,
        house: House,
        restarts: Restarts,
        snapshot: Callable[[], status.Status],
        hardware: Hardware,
    ) -> None:
        self._config = config
        self._house = house
        self._restarts = restarts
        self._snapshot = snapshot
        self._hardware = hardware

    async def status(self, request: protocol.Status, asker: Peer, tell: Tell) -> Final:  # noqa: ARG002
        """The present snapshot."""
        return Report(status=self._snapshot())

    async def drain(self, request: protocol.Drain, asker: Peer, tell: Tell) -> Final:
        """Drain, and wait for it where that is wanted."""
        event = self._drain_asked(request, asker, "a drain was asked for")
        return await _each(
            self._drain(one, event, tell, wait=request.wait) for one in self._named(request)
        )

    async def stopping(self, request: protocol.Stopping, asker: Peer, tell: Tell) -> Final:  # noqa: ARG002
        """Drain for systemd, which waits for it."""
        (one,) = self._known((request.replica,))
        begun = boottime()
        event = StopBegan(
            request.invocation_id,
            settle=self._config.settle_seconds,
            seconds=request.deadline,
            policy=request.on_deadline,
            cap=request.cap,
        )
        step = await _told(one, event)
        before = step.record.drain.in_flight if step.record.drain else None
        record = await follow(one, tell, lambda record: record.phase is not Phase.DRAINING)
        return Done(results=(_result(record, begun, in_flight=before),))

    async def ready(self, request: protocol.Ready, asker: Peer, tell: Tell) -> Final:
        """Take drains back."""
        by = Asker(asker.user, "person", request.reason or "ready was asked for")
        return await _each(
            self._ready(one, ReadyAsked(by), tell, wait=request.wait)
            for one in self._named(request)
        )

    async def restart(self, request: protocol.Restart, asker: Peer, tell: Tell) -> Final:
        """Drain, restart the unit, warm up."""
        event = self._drain_asked(request, asker, "a restart was asked for")
        return await _each(
            self._restart(one, event, tell, wait=request.wait) for one in self._named(request)
        )

    async def evidence(self, request: protocol.Evidence, asker: Peer, tell: Tell) -> Final:  # noqa: ARG002
        """Have root's program keep evidence."""
        self._known((request.replica,))
        why = f"{request.reason or 'asked for'} ({asker})"
        try:
            bundle = await self._house.actor.evidence(request.replica, why)
        except ActError as error:
            raise ControlError(error.text, error.next) from error
        return Bundle(path=str(bundle.path), size_bytes=bundle.size)

    async def journal(self, request: protocol.Journal, asker: Peer, tell: Tell) -> Final:  # noqa: ARG002
        """Tell what the agent logged."""
        from farrier_agent.control.entries import entries  # noqa: PLC0415 - only for this verb

        if request.replica is not None:
            self._known((request.replica,))
        read = entries(request.replica, request.lines, follow=request.follow)
        async with aclosing(read):  # its journalctl ends with it
            async for entry in read:
                await tell(entry)
        return Done()

    async def ack(self, request: protocol.Ack, asker: Peer, tell: Tell) -> Final:  # noqa: ARG002
        """Clear what is latched."""
        why = f" ({request.reason})" if request.reason else ""
        return Told(lines=await self._hardware.ack(request.rule, request.gpu, f"{asker.user}{why}"))

    async def nvml(self, request: protocol.Nvml, asker: Peer, tell: Tell) -> Final:  # noqa: ARG002
        """Let go of the GPUs' driver, or take it up again."""
        if request.action == "release":
            return Told(lines=await self._hardware.release(request.seconds, asker.user))
        return Told(lines=await self._hardware.acquire(asker.user))

    async def lease(self, request: protocol.Lease, asker: Peer, tell: Tell) -> Final:
        """Not yet."""
        raise ControlError("this agent keeps no leases")

    async def act(self, request: protocol.Act, asker: Peer, tell: Tell) -> Final:
        """Not yet."""
        raise ControlError("this agent keeps no leases")

    async def audit(self, request: protocol.Audit, asker: Peer, tell: Tell) -> Final:
        """Not yet."""
        raise ControlError("this agent keeps no audit")

    async def ledger(
        self, request: protocol.Ledger, asker: Peer, tell: Tell, content: bytes
    ) -> Final:
        """Not yet."""
        raise ControlError("this agent keeps no ledgers")

    # -- one replica ---------------------------------------------------------------------------

    async def _drain(self, one: OfReplica, event: DrainAsked, tell: Tell, *, wait: bool) -> Result:
        begun, before = boottime(), one.life.record
        step = await _told(one, event)
        in_flight = one.looker.in_flight
        if step.refused:
            return _refused(one, step)
        record = step.record
        changed = before is None or record.phase is not before.phase
        if wait and record.phase is Phase.DRAINING:
            record = await follow(one, tell, lambda record: record.phase is not Phase.DRAINING)
            if not record.held and record.phase in {Phase.READY, Phase.WARMING}:
                text = f"not drained: {record.reason} (asked by {record.by})"
                return _result(record, begun, in_flight=in_flight, code=1, text=text)
        text = "" if record.phase is not Phase.STOPPED else "its engine does not run"
        return _result(record, begun, in_flight=in_flight, changed=changed, text=text, wait=wait)

    async def _ready(self, one: OfReplica, event: ReadyAsked, tell: Tell, *, wait: bool) -> Result:
        begun, was_open = boottime(), one.life.takes_requests
        step = await _told(one, event)
        if step.refused:
            return _refused(one, step)
        self._hardware.overruled(one.life.name)
        record = step.record
        if wait:
            record = await follow(one, tell, lambda record: _settled(one, record))
        code, text = 0, ""
        if wait and not one.life.takes_requests:
            code, text = 1, record.reason
        elif record.phase is Phase.WARMING:
            text = "its gate opens when it is warm"
        elif record.phase in {Phase.STOPPED, Phase.STARTING, Phase.FAILED}:
            text = f"it is not held any more: {record.reason}"
        return _result(record, begun, code=code, text=text, changed=not was_open, wait=wait)

    async def _restart(
        self, one: OfReplica, event: DrainAsked, tell: Tell, *, wait: bool
    ) -> Result:
        begun, in_flight = boottime(), one.looker.in_flight
        task = self._restarts.begin(one, event)
        if not wait:
            # a refusal comes at once; whatever comes later is in the journal
            await asyncio.wait({task}, timeout=0.5)
        while wait and not task.done():
            if one.life.record is not None:
                await tell(progress(one, one.life.record))
            await asyncio.wait(
                {task, asyncio.ensure_future(one.life.news(1.0))},
                timeout=1.0,
                return_when=asyncio.FIRST_COMPLETED,
            )
        record = one.life.record
        assert record is not None  # noqa: S101 - it was told of the drain
        if not task.done():
            text = "its restart goes on: farrier-agent status"
            return _result(record, begun, in_flight=in_flight, text=text, wait=False)
        ended = task.result()
        text = ended.why or ""
        if ended.next:
            text += f"; next: {ended.next}"
        last = record.last_drain
        cut = last.cut or 0 if last and last.forced and last.begun >= begun - 1 else 0
        return _result(
            record, begun, in_flight=in_flight, code=1 if ended.why else 0, text=text, cut=cut
        )

    # -- all of them ---------------------------------------------------------------------------

    def _drain_asked(
        self, request: protocol.Drain | protocol.Restart, asker: Peer, reason: str
    ) -> DrainAsked:
        config = self._config
        seconds = config.drain_seconds if request.deadline is None else request.deadline
        return DrainAsked(
            Asker(asker.user, "person", request.reason or reason),
            settle=config.settle_seconds,
            seconds=seconds,
            policy=request.on_deadline or config.drain_policy,
        )

    def _named(
        self, request: protocol.Drain | protocol.Ready | protocol.Restart
    ) -> list[OfReplica]:
        return list(self._house.replicas.values()) if request.all else self._known(request.replicas)

    def _known(self, names: tuple[str, ...]) -> list[OfReplica]:
        """The replicas *names*, each once. Raises UsageError."""
        known = self._house.replicas
        for name in names:
            if name not in known:
                has = ", ".join(sorted(known)) or "none"
                raise UsageError(
                    f"no replica is named {name!r} (this host has: {has})", "farrier-agent status"
                )
        return [known[name] for name in dict.fromkeys(names)]


async def _each(works: Iterable[Awaitable[Result]]) -> Done:
    """All of *works* at once."""
    return Done(results=tuple(await asyncio.gather(*works)))


async def _told(one: OfReplica, event: Event) -> Transition:
    try:
        if isinstance(event, DrainAsked | StopBegan):
            return await one.drain(event)
        return await one.life.tell(event)
    except (StoreError, OSError) as error:
        raise ControlError(
            f"replica {one.life.name}: nothing was done: {error}", "df -h /var/lib/farrier"
        ) from error


def _settled(one: OfReplica, record: Record) -> bool:
    """What became of a *ready* is known: it serves, or it will not by itself."""
    if record.phase is Phase.READY:
        return bool(one.life.gate_open)
    return record.phase not in {Phase.WARMING, Phase.STARTING, Phase.DRAINING}


def _refused(one: OfReplica, step: Transition) -> Result:
    return Result(
        replica=one.life.name,
        state=step.record.phase.value,
        code=3,
        changed=False,
        text=step.refused or "",
    )


def _result(
    record: Record,
    begun: float,
    *,
    in_flight: int | None = None,
    code: int = 0,
    text: str = "",
    changed: bool = True,
    wait: bool = True,
    cut: int | None = None,
) -> Result:
    drain = record.drain
    lost = cut if cut is not None else (drain.cut or 0) if drain and drain.forced else 0
    return Result(
        replica=record.replica,
        state=record.phase.value,
        code=1 if code else 0,
        changed=changed,
        text=text,
        in_flight=in_flight,
        cut=lost,
        seconds=max(0.0, boottime() - begun) if wait else None,
    )
