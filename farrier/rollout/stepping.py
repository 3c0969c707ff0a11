"""The steps of one host, one after the other, from wherever it stands.

Each is recorded before it begins and when it has ended. A lease that was lost ends them at once;
a wish to stop ends them where that leaves nothing half done.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress

from farrier.fleet import ShellError
from farrier.rollout import acting, canary, driver, proving
from farrier.rollout.converging import converge
from farrier.rollout.draining import count_lost, drain_host
from farrier.rollout.driver import can_go_back
from farrier.rollout.errors import FencedError, RolloutError
from farrier.rollout.hooks import environment, run_hook
from farrier.rollout.host import Host
from farrier.rollout.ledger import HostRecord, HostState
from farrier.rollout.measuring import measure, measure_for_reboot
from farrier.rollout.next_kernel import check_one
from farrier.rollout.one_host import OneHost, Surroundings
from farrier.rollout.plan import DRIVERS, RESTARTS
from farrier.rollout.putting_back import put_back
from farrier.rollout.resuming import go_on
from farrier.rollout.steps import Step, after, first, in_words
from farrier.rollout.waiting import StoppedError

__all__ = ["Stepping"]


class Stepping:
    """One host of a rollout: :meth:`run` does what is left to do there."""

    def __init__(self, host: Host, record: HostRecord, around: Surroundings) -> None:
        self._it = OneHost(host, record, around)
        self._record = record
        self._around = around
        self._ledger = around.ledger
        self._book = around.book

    def run(self) -> None:
        """Do every step that is left. Raises nothing: how it ended stands in the record."""
        try:
            self._run()
        except StoppedError:
            self._end("taken back", "stopped on demand")
        except FencedError as error:
            self._failed(error.what, self._resume(), error.code)
        except RolloutError as error:
            self._failed(error.what, self._ways_out(error), error.code)
        except ShellError as error:
            # it may be gone for good, or come back with half of it done: both are resumed
            self._failed(f"{error.host}: {error.what}", f"{error.next}; then {self._resume()}")

    def _run(self) -> None:
        record, it = self._record, self._it
        resumed = bool(record.steps)
        seen = it.look().seen
        count_lost(it, seen)
        next_step = go_on(it.kind, record, seen, run_again=self._around.run_again)
        if next_step.stop:
            raise RolloutError(
                f"{record.host}: {next_step.stop}",
                f"farrier audit {record.host}; then farrier rollout resume {self._ledger.id}"
                " --run-again, or farrier rollout abort",
            )
        with self._book.changing():
            record.state, record.failure, record.next = "running", None, None
            record.code = 0
            if next_step.anew and next_step.step is Step.DRAIN:
                record.renew(it.renewed(seen))
        step = next_step.step
        while step is not None:
            self._it.on_lease()
            if self._may_stop_before(step) and self._around.stop.is_set():
                raise StoppedError
            kind = it.kind
            if not self._skips(step):
                again = " (resumed)" if resumed else ""
                it.tell(f"{in_words(step)}{again}")
                resumed = False
                self._do(step)
            if it.kind == kind:
                step = after(kind, step)
            else:
                it.tell(f"is put back: {record.turned}")
                step = first(it.kind)
        self._end("put back" if record.turned else "done", "done")

    def _do(self, step: Step) -> None:
        """Do *step*. A host whose driver failed turns back, where it can."""
        try:
            with self._book.step(self._record, step) as told:
                told.note = _DOING[step](self._it) or ""
        except FencedError:
            raise
        except RolloutError as error:
            if error.code != 1 or not self._turns_back(step):
                raise
            if self._it.around.leases.lost.get(self._record.host):
                raise
            with self._book.changing():
                self._record.turn_back(error.what)

    def _turns_back(self, step: Step) -> bool:
        """What *step* failed at is put right by what was there before."""
        if self._it.kind != "driver" or step not in _TURNS:
            return False
        try:
            if can_go_back(self._it):
                return True
        except (RolloutError, ShellError):
            return False  # it cannot be asked: nothing can be done to it either
        self._it.tell("there is no way back: it stays closed")
        return False

    def _skips(self, step: Step) -> bool:
        options = self._ledger.options
        unwanted = {
            Step.HOOK_BEFORE: options.hook_before is None,
            Step.HOOK_AFTER: options.hook_after is None,
            Step.HOLD: not canary.is_canary(self._it),
            # a command cools nothing. A restart waits for its replicas itself, but the agent's last
            # look at an engine may be older than that
            Step.WARM: self._it.kind == "run",
            Step.SOAK: options.soak <= 0 or self._around.stop.is_set(),
        }
        if unwanted.get(step, False):
            return True
        if self._record.settled:
            return step is not Step.HOOK_AFTER
        if step in {Step.REBOOT, Step.BACK} and self._it.kind in DRIVERS:
            return self._record.reboots_for is None
        if self._it.kind in {"converge", "rollback"} and not self._record.replicas:
            return step not in {Step.CONVERGE, Step.PUT_BACK, Step.SETTLE}
        return False

    def _may_stop_before(self, step: Step) -> bool:
        """Before the drain nothing is held; after the act it is brought to a good end."""
        if self._it.kind == "driver-back":
            return False
        return step in {Step.HOOK_BEFORE, Step.CONVERGE, Step.PUT_BACK, Step.PLAN, Step.DRAIN}

    def _ways_out(self, error: RolloutError) -> str | None:
        """What to type after *error*: also what does not come up can go on, or back."""
        it, record = self._it, self._record
        last = record.present[-1].step if record.present else None
        if it.kind not in RESTARTS or error.code == 3 or last not in {"act", "warm", "check"}:
            return error.next
        ways = [error.next, f"{self._resume()}, once it is put right"]
        with suppress(RolloutError, ShellError):
            seen = it.look().seen
            mine = [seen.replica(one.name) for one in record.replicas]
            if it.kind != "rollback" and any(one and one.back for one in mine):
                ways.append(f"farrier rollout rollback --limit {record.host}{self._inventory()}")
        return "; or ".join(one for one in ways if one)

    def _resume(self) -> str:
        return f"farrier rollout resume {self._ledger.id}{self._inventory()}"

    def _inventory(self) -> str:
        given = self._ledger.options.inventory
        return "" if given == "inventory" else f" --inventory {shlex.quote(given)}"

    def _failed(self, what: str, next_command: str | None, code: int = 1) -> None:
        self._record.code = code
        self._end("failed", f"failed: {what}", failure=what, next_command=next_command)

    def _end(
        self,
        state: HostState,
        said: str,
        *,
        failure: str | None = None,
        next_command: str | None = None,
    ) -> None:
        with self._book.changing():
            self._record.state = state
            if self._record.over:
                self._record.grow_small()
            self._record.failure, self._record.next = failure, next_command
        self._it.tell(said)


def _hook_before(it: OneHost) -> None:
    _hook(it, "before")


def _hook_after(it: OneHost) -> None:
    _hook(it, "after")


def _hook(it: OneHost, when: str) -> None:
    options = it.ledger.options
    path = options.hook_before if when == "before" else options.hook_after
    if path is None:
        return
    words = environment(
        it.ledger,
        it.record,
        it.host.target,
        "before" if when == "before" else "after",
        it.around.store.path(it.ledger.id),
    )
    it.watched(lambda: run_hook(path, words))


def _drain(it: OneHost) -> str | None:
    if it.kind == "reboot" and it.look().seen.accelerator != "cpu":
        check_one(it)
    return drain_host(it)


def _measure(it: OneHost) -> str:
    return measure_for_reboot(it) if it.kind == "reboot" else measure(it)


def _converge(it: OneHost) -> str | None:
    log = it.around.store.directory / f"{it.ledger.id}-{it.record.host}.log"
    inventory = it.ledger.options.inventory
    said = it.watched(lambda: converge(it.record.host, inventory, log))
    now = it.look().seen
    with it.book.changing():
        it.record.output = said
        it.record.renew(it.renewed(now))
    canary.converged(it)
    names = ", ".join(one.name for one in it.record.replicas)
    note = f"to be restarted: {names}" if names else "nothing is to be restarted"
    it.tell(note)
    return note


_DOING: Mapping[Step, Callable[[OneHost], str | None]] = {
    Step.HOOK_BEFORE: _hook_before,
    Step.CONVERGE: _converge,
    Step.PUT_BACK: put_back,
    Step.DRAIN: _drain,
    Step.ACT: acting.act,
    Step.BACK: acting.back,
    Step.WARM: proving.warm,
    Step.CHECK: proving.check,
    Step.READY: proving.ready,
    Step.HOLD: canary.hold,
    Step.SOAK: proving.soak,
    Step.SETTLE: proving.settle,
    Step.HOOK_AFTER: _hook_after,
    Step.PLAN: driver.plan,
    Step.MEASURE: _measure,
    Step.LET_GO: driver.let_go,
    Step.INSTALL: driver.install,
    Step.REBOOT: driver.reboot,
    Step.TAKE_UP: driver.take_up,
}

_TURNS = frozenset(
    {Step.LET_GO, Step.INSTALL, Step.TAKE_UP, Step.WARM, Step.CHECK, Step.READY, Step.SOAK}
)
"""Where a driver that fails is put back."""
