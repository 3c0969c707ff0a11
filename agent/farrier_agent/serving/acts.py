"""What a rollout does to this host: marked durably, then done, one at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from farrier_agent.config import AgentConfig
from farrier_agent.control import protocol
from farrier_agent.control.errors import ControlError, RefusedError
from farrier_agent.control.peer import Asker as Peer
from farrier_agent.control.protocol import Done, Final, Result
from farrier_agent.control.server import Tell
from farrier_agent.draining.events import DrainAsked
from farrier_agent.draining.record import Asker, Now, Phase
from farrier_agent.rollout import lease as rules
from farrier_agent.rollout.audit import AuditLine
from farrier_agent.rollout.deed import LOCK, NOTE, deed_under_way
from farrier_agent.rollout.lease import Lease, State
from farrier_agent.serving.asked import all_of, told
from farrier_agent.serving.following import watch
from farrier_agent.serving.house import House, OfReplica
from farrier_agent.serving.leases import Leases
from farrier_agent.serving.life import boottime
from farrier_agent.serving.restarting import Ended, Restarts
from farrier_agent.serving.results import is_drained, result

__all__ = ["Acts"]

log = logging.getLogger("farrier-agent")

KNOWN_SECONDS = 5.0
"""Seconds that systemd and the records may take to be read after the agent started."""


class _Acted(NamedTuple):
    """A replica whose restart for a rollout was begun."""

    one: OfReplica
    begun: float
    task: asyncio.Task[Ended]


class Acts:
    """The verb act, for *house*."""

    def __init__(
        self, config: AgentConfig, house: House, restarts: Restarts, leases: Leases
    ) -> None:
        self._config = config
        self._house = house
        self._restarts = restarts
        self._leases = leases
        self._lock = Path(config.run_dir) / LOCK

    async def act(self, request: protocol.Act, asker: Peer, tell: Tell) -> Final:
        """Mark that a rollout lays hands on the host; restart its replicas where that is it."""
        ones = self._house.named(request.replicas, every=request.all)
        line = AuditLine(
            at=time.time(),
            by=asker.user,
            verb=f"act {request.action}",
            outcome="begun",
            replicas=tuple(one.life.name for one in ones),
            token=request.token,
            reason=request.command or None,
        )
        if request.action == "ran":
            how = "done" if request.code == 0 else f"failed: status {request.code}"
            await self._leases.note(msgspec.structs.replace(line, outcome=how))
            return self._leases.told()
        if request.action in {"put-back", "ended"}:
            how = "done" if request.code == 0 else "refused" if request.code == 3 else "failed"
            await self._leases.note(msgspec.structs.replace(line, outcome=how))
            return self._leases.told()
        if request.action == "back":
            return await self._leases.noted(
                msgspec.structs.replace(line, verb="act back, asked"),
                self._leases.do(partial(self._may, request)),
            )
        if request.action == "take-up":
            return await self._leases.noted(line, self._leases.do(partial(self._may, request)))
        if request.action == "restart":
            return await self._leases.noted(line, self._restart(request, ones, line, tell))
        if request.action == "let-go":
            await self._known(ones)
        return await self._leases.noted(line, self._leases.do(partial(self._mark, request, ones)))

    async def _mark(
        self, request: protocol.Act, ones: list[OfReplica], state: State, now: Now
    ) -> Final:
        """Keep that somebody lays hands on the host, or does no more."""
        self._nobody_restarts()
        if request.action not in {"run", "reboot", "let-go", "gpu-reset", "gpu-diag"}:
            # those have that lock themselves
            self._no_command_runs()
        if request.action == "done":
            new = rules.done(state, request.token, now)
            if new != state:
                await self._leases.keep(new)
                await self._leases.worker.do(self._forget_let_go)
                log.info("nothing is done to this host any more", extra={"cause": "rollout"})
            return self._leases.told()
        assert request.token is not None  # noqa: S101 - the request is checked
        deed: rules.Deed = request.deed or request.action  # type: ignore[assignment]
        lease = rules.fenced(state, request.token, now)
        every = list(self._house.replicas.values())
        if request.action == "reboot":
            self._all_drained(every)
        self._may_let_go(ones)
        await self._leases.keep(rules.begun(state, request.token, deed, now))
        self._say_acting(lease, deed)
        # what a person holds closed besides outlives the rollout's doing only as a rollout's does
        stopped = every if request.action == "reboot" else ones
        held = [one for one in every if one in stopped or _is_held(one)]
        await all_of(told(one, self._hold(lease)) for one in held)
        return self._leases.told()

    async def _may(self, request: protocol.Act, state: State, now: Now) -> Final:
        """Nothing is interrupted by that, so nothing is marked. Who asks has the lock of deeds."""
        self._nobody_restarts()
        assert request.token is not None  # noqa: S101 - the request is checked
        rules.fenced(state, request.token, now)
        return self._leases.told()

    async def _restart(
        self, request: protocol.Act, ones: list[OfReplica], line: AuditLine, tell: Tell
    ) -> Final:
        # an agent that has just come back is asked again: what was done it does not do twice
        await self._known(ones)

        async def begin(state: State, now: Now) -> list[_Acted]:
            assert request.token is not None  # noqa: S101 - the request is checked
            lease = rules.fenced(state, request.token, now)
            self._no_command_runs()
            due = [one for one in ones if not self._was_restarted(one, request.runs)]
            self._may_restart(due, named=not request.all)
            await self._leases.keep(rules.begun(state, request.token, "restart", now))
            self._say_acting(lease, "restart")
            await self._leases.note(line)
            await all_of(told(one, self._hold(lease)) for one in due)
            return [self._act(one, request.runs, restart=one in due) for one in ones]

        begun = await self._leases.do(begin)
        return Done(results=await all_of(_acted(it, tell) for it in begun))

    def _say_acting(self, lease: Lease, deed: rules.Deed) -> None:
        log.info(
            "rollout %s (%s, token %d) acts: %s; what it drained stays closed until it says ready",
            *(lease.rollout, lease.holder, lease.token, deed),
            extra={"cause": "rollout"},
        )

    async def _known(self, ones: Sequence[OfReplica]) -> None:
        """Wait until the units and the records of *ones* were read, but not for ever."""
        loop = asyncio.get_running_loop()
        end = loop.time() + KNOWN_SECONDS
        units = [one.life.replica.unit for one in ones]
        while loop.time() < end and any(self._house.units.state(unit) is None for unit in units):
            await asyncio.sleep(0.1)
        await self._house.known(max(0.0, end - loop.time()))

    def _act(self, one: OfReplica, runs: Mapping[str, str], *, restart: bool) -> _Acted:
        record = one.life.record
        before = record.invocation_id if record and restart else runs.get(one.life.name)
        return _Acted(one, boottime(), self._restarts.act(one, before, restart=restart))

    def _was_restarted(self, one: OfReplica, runs: Mapping[str, str]) -> bool:
        """It is in another run than the asker, who asks again, saw when it asked first."""
        before = runs.get(one.life.name)
        if before is None:
            return False
        unit = self._house.units.state(one.life.replica.unit)
        if unit is None:
            raise ControlError(
                f"systemd does not say how {one.life.replica.unit} is; nothing was done",
                f"systemctl status {one.life.replica.unit}",
            )
        return unit.invocation_id != before

    def _may_restart(self, ones: Iterable[OfReplica], *, named: bool) -> None:
        """Raises RefusedError, and then none is restarted."""
        for one in ones:
            self._restarts.may_act(one.life.name)
        why = [f"replica {one.life.name} {it}" for one in ones if (it := _why_not(one, named))]
        if why:
            raise RefusedError(
                f"{'; '.join(why)}; nothing was done",
                "farrier-agent drain REPLICA --token N --wait",
            )

    def _may_let_go(self, ones: Iterable[OfReplica]) -> None:
        """Raises RefusedError, and then nothing is stopped."""
        ones = list(ones)
        if serves := [one.life.name for one in ones if one.life.gate_open]:
            raise RefusedError(
                f"the gate of {', '.join(serves)} is open; nothing was done",
                "farrier-agent drain REPLICA --token N --wait",
            )
        for one in ones:
            self._restarts.may_act(one.life.name)
        if why := [f"replica {one.life.name} {it}" for one in ones if (it := _why_serving(one))]:
            raise RefusedError(
                f"{'; '.join(why)}; nothing was done",
                "farrier-agent drain REPLICA --token N --wait",
            )

    def _hold(self, lease: Lease) -> DrainAsked:
        """The rollout of *lease* wants it closed, also after its unit was stopped and started."""
        why = f"held by rollout {lease.rollout}"
        return DrainAsked(
            Asker(lease.holder, "rollout", why, lease.rollout),
            settle=self._config.settle_seconds,
            seconds=self._config.drain_seconds,
        )

    def _forget_let_go(self) -> None:
        with suppress(OSError):
            (self._leases.directory / NOTE).unlink(missing_ok=True)

    def _nobody_restarts(self) -> None:
        if under_way := self._restarts.under_way:
            raise RefusedError(
                f"a restart is under way ({', '.join(under_way)}); nothing was done",
                "farrier-agent status",
            )

    def _no_command_runs(self) -> None:
        if (command := deed_under_way(self._lock)) is not None:
            raise RefusedError(
                f"a rollout's command runs on this host ({command}); nothing was done",
                "farrier-agent status",
            )

    def _all_drained(self, ones: Iterable[OfReplica]) -> None:
        why = [
            f"replica {one.life.name} is {record.phase.value}"
            for one in ones
            if (record := one.life.record) is not None and not is_drained(record)
        ]
        if why:
            raise RefusedError(
                f"not everything is drained: {', '.join(why)}; nothing was done",
                "farrier-agent drain --all --token N --wait",
            )


def _is_held(one: OfReplica) -> bool:
    return one.life.record is not None and one.life.record.held


def _why_serving(one: OfReplica) -> str | None:
    """Why its engine may not be stopped for a rollout: it serves, or may soon."""
    record = one.life.record
    if record is None:
        return "is not known yet"
    # whatever it does behind the gate that the rollout holds closed
    closed = bool(record.rollouts) and record.phase not in {Phase.READY, Phase.DRAINING}
    return None if closed or is_drained(record) else f"is {record.phase.value}, not drained"


def _why_not(one: OfReplica, named: bool) -> str | None:
    """Why a rollout may not restart it now."""
    record = one.life.record
    if record is None:
        return "is not known yet"
    # warming up, or in vain, behind the gate that the rollout holds closed
    closed = bool(record.rollouts) and record.phase in {Phase.WARMING, Phase.FAILED}
    if not is_drained(record) and not closed:
        return f"is {record.phase.value}, not drained"
    if record.others and not named:
        who = record.others[-1]
        return (
            f"is kept closed by others ({who.reason}, asked by {who.by}): who wants it restarted"
            " all the same names it"
        )
    return None


async def _acted(it: _Acted, tell: Tell) -> Result:
    await watch(it.one, it.task, tell)
    ended, record = it.task.result(), it.one.life.record
    assert record is not None  # noqa: S101 - it was drained
    text = ended.why or ("warm, and closed until ready" if record.held else "")
    if ended.next:
        text += f"; next: {ended.next}"
    return msgspec.structs.replace(
        result(record, it.begun, code=1 if ended.why else 0, text=text),
        stop_seconds=ended.took.get("stop"),
        start_seconds=ended.took.get("start"),
        warm_seconds=ended.took.get("warm"),
    )
