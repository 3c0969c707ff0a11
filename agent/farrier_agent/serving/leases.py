"""The lease of this host as the agent keeps it: checked and used in one step.

Whoever acts for a rollout does so between the check of its token and the next change of the lease,
under one lock: no other rollout can come in between. What was begun so is ended, also when its
asker goes away. Nothing here decides; that is :mod:`farrier_agent.rollout.lease`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from farrier_agent import status
from farrier_agent.config import AgentConfig
from farrier_agent.control.errors import ControlError, RefusedError
from farrier_agent.control.protocol import Done, Final, Leased, exit_code
from farrier_agent.draining.record import Now, Record
from farrier_agent.rollout import lease as rules
from farrier_agent.rollout.audit import AuditLine, AuditLog
from farrier_agent.rollout.keeping import LeaseFile, LeaseFileError
from farrier_agent.rollout.lease import Lease, State
from farrier_agent.serving.worker import Worker

__all__ = ["BY", "Leases"]

log = logging.getLogger("farrier-agent")

BY = "farrier-agent (rollout)"
"""Who acts where no rollout does any more."""

T = TypeVar("T")


class Leases:
    """The lease, the mark *acting* and the audit of the host of *config*.

    *changed* is called when there is something new to show.
    """

    def __init__(self, config: AgentConfig, changed: Callable[[], None]) -> None:
        self.directory = Path(config.rollout_dir)
        self.worker = Worker("rollout")
        self._file = LeaseFile(self.directory)
        self._audit = AuditLog(self.directory)
        self._changed = changed
        self._lock = asyncio.Lock()
        self._state: State | None = None
        self._problem: str | None = None
        self._audit_problem: str | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- what is known ---------------------------------------------------------------------------

    @property
    def state(self) -> State | None:
        """As it was last kept; None where it is not known."""
        return self._state

    def hands_off(self, record: Record) -> bool:
        """A rollout is at work on the replica of *record*: nobody else restarts it."""
        return bool(record.rollouts) and (self._state is None or self._state.acting is not None)

    def shown(self, now: Now) -> status.Rollout | None:
        """What ``/status`` tells; None where there is no rollout."""
        state = self._state
        if state is None:
            return status.Rollout(problem=self._problem) if self._problem else None
        lease, acting = rules.alive(state, now), state.acting
        if lease is None and acting is None:
            return None
        who = lease or acting
        assert who is not None  # noqa: S101 - one of them is there
        return status.Rollout(
            rollout=who.rollout,
            holder=who.holder,
            token=who.token,
            expires_in=rules.left(lease, now) if lease else None,
            acting=acting.deed if acting else None,
            acting_since=acting.since_at if acting else None,
        )

    def told(self) -> Leased:
        """The lease as whoever asks for it is answered."""
        state, now = self._state or State(), Now.read()
        lease, acting = rules.alive(state, now), state.acting
        return Leased(
            token=lease.token if lease else state.token,
            rollout=lease.rollout if lease else None,
            holder=lease.holder if lease else None,
            expires_in=rules.left(lease, now) if lease else None,
            acting=acting.deed if acting else None,
            acting_rollout=acting.rollout if acting else None,
        )

    # -- changing it -----------------------------------------------------------------------------

    async def do(self, work: Callable[[State, Now], Awaitable[T]]) -> T:
        """Do *work* with the state as it is, before anybody else changes it. Raises ControlError.

        It is done to its end, also when who asked is gone.
        """
        return await asyncio.shield(self._spawn(self._locked(work)))

    async def for_rollout(
        self, token: int | None, work: Callable[[Lease | None], Awaitable[T]]
    ) -> T:
        """Do *work* with the lease of *token*; without a token it is a person's, at once.

        Raises RefusedError, and then nothing was done.
        """
        if token is None:
            return await work(None)
        return await self.do(lambda state, now: work(rules.fenced(state, token, now)))

    async def keep(self, state: State, *, durable: bool = True) -> None:
        """Make *state* the present one, within :meth:`do`. Raises ControlError; then it is not."""
        try:
            await self.worker.do(lambda: self._file.save(state, durable=durable))
        except LeaseFileError as error:
            raise ControlError(f"nothing was done: {error}") from error
        self._state = state
        self._changed()

    async def known(self) -> State:
        """The state, read where it was not yet. Raises ControlError where it cannot be."""
        if self._state is None:
            try:
                state, wrong = await self.worker.do(lambda: self._file.load(Now.read()))
            except LeaseFileError as error:
                self._complain(str(error))
                raise ControlError(f"nothing was done: {error}") from error
            self._complain(None)
            if wrong is not None:
                log.error(
                    "the lease of this host is lost: %s; a rollout may be at work here: what one"
                    " drained stays closed until farrier-agent act done",
                    wrong,
                    extra={"cause": "rollout"},
                )
            self._state = state
            self._changed()
        return self._state

    async def close(self) -> None:
        """Wait for what is being kept."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- the audit -------------------------------------------------------------------------------

    async def note(self, line: AuditLine) -> None:
        """Write *line*. Where that fails it is said, and what was done stays done."""
        line = self._attributed(line)
        try:
            await self.worker.do(lambda: self._audit.write(line))
        except OSError as error:
            problem = f"{self.directory}: the audit cannot be written: {error.strerror}"
            if problem != self._audit_problem:
                log.error("%s", problem, extra={"cause": "rollout"})
            self._audit_problem = problem
        else:
            self._audit_problem = None

    async def noted(self, line: AuditLine, work: Awaitable[Final], *, quiet: bool = False) -> Final:
        """What *work* comes to, with *line* in the audit that says so. Raises what it raises.

        *quiet*: only what came to nothing is worth a line.
        """
        try:
            final = await work
        except RefusedError as error:
            await self.note(_with(line, f"refused: {error}"))
            raise
        except ControlError as error:
            await self.note(_with(line, f"failed: {error}"))
            raise
        if not quiet:
            if line.token is None and isinstance(final, Leased) and line.rollout is not None:
                line = msgspec.structs.replace(line, token=final.token)
            await self.note(_with(line, outcome(final)))
        return final

    async def audit(self, count: int) -> tuple[AuditLine, ...]:
        """The last *count* lines. Raises ControlError."""
        try:
            return await self.worker.do(lambda: self._audit.last(count))
        except OSError as error:
            raise ControlError(
                f"the audit cannot be read: {error.strerror}", f"ls -l {self.directory}"
            ) from error

    # -- inside ----------------------------------------------------------------------------------

    async def _locked(self, work: Callable[[State, Now], Awaitable[T]]) -> T:
        async with self._lock:
            state = await self.known()
            return await work(state, Now.read())

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # who asked may have left: then nobody else would look at it

    def _attributed(self, line: AuditLine) -> AuditLine:
        """*line* with the rollout whose token it names."""
        state = self._state or State()
        for one in (state.lease, state.last):
            if one is not None and one.token == line.token:
                return msgspec.structs.replace(
                    line, rollout=one.rollout, holder=line.holder or one.holder
                )
        return line

    def _complain(self, problem: str | None) -> None:
        if problem and problem != self._problem:
            log.error(
                "%s; what a rollout drained stays closed", problem, extra={"cause": "rollout"}
            )
        if problem != self._problem:
            self._problem = problem
            self._changed()


def outcome(final: Final) -> str:
    """*final* in a few words, for the audit."""
    word = {0: "done", 1: "failed", 2: "failed", 3: "refused"}[exit_code(final)]
    if not isinstance(final, Done):
        return word
    told = []
    for one in final.results:
        cut = f", {one.cut} cut" if one.cut else ""
        why = f" ({one.text})" if one.text and one.code else ""
        told.append(f"{one.replica} {one.state}{cut}{why}")
    return f"{word}: {'; '.join(told)}" if told else word


def _with(line: AuditLine, said: str) -> AuditLine:
    return msgspec.structs.replace(line, outcome=said)
