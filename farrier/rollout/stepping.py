"""The steps of one host, one after the other, from wherever it stands.

Each is recorded before it begins and when it has ended. A lease that was lost ends them at once;
a wish to stop ends them where that leaves nothing half done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from farrier.fleet import ShellError
from farrier.rollout import acting, proving
from farrier.rollout.converging import converge
from farrier.rollout.draining import count_lost, drain_host
from farrier.rollout.errors import FencedError, RolloutError
from farrier.rollout.hooks import environment, run_hook
from farrier.rollout.host import Host
from farrier.rollout.ledger import HostRecord
from farrier.rollout.one_host import OneHost, Surroundings, replica_record
from farrier.rollout.resuming import go_on
from farrier.rollout.steps import Step, after, in_words
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
            self._failed(error.what, f"farrier rollout resume {self._ledger.id}", error.code)
        except RolloutError as error:
            self._failed(error.what, error.next, error.code)
        except ShellError as error:
            self._failed(f"{error.host}: {error.what}", error.next)

    def _run(self) -> None:
        kind, record = self._ledger.kind, self._record
        resumed = bool(record.steps)
        seen = self._it.look().seen
        count_lost(self._it, seen)
        next_step = go_on(kind, record, seen, run_again=self._around.run_again)
        if next_step.stop:
            raise RolloutError(
                f"{record.host}: {next_step.stop}",
                f"farrier audit {record.host}; then farrier rollout resume {self._ledger.id}"
                " --run-again, or farrier rollout abort",
            )
        with self._book.changing():
            record.state, record.failure, record.next = "running", None, None
            record.code = 0
        step = next_step.step
        acted = False
        while step is not None:
            self._it.on_lease()
            if self._may_stop_before(step) and self._around.stop.is_set():
                raise StoppedError
            if not (self._skips(step) or (step is Step.WARM and acted)):
                again = " (resumed)" if resumed else ""
                self._it.tell(f"{in_words(step)}{again}")
                resumed = False
                with self._book.step(record, step) as told:
                    told.note = _DOING[step](self._it) or ""
            # a restart waits until its replicas are warm, and a command cools nothing
            acted = step is Step.ACT and kind != "reboot"
            step = after(kind, step)
        self._end("done", "done")

    def _skips(self, step: Step) -> bool:
        options = self._ledger.options
        if step is Step.HOOK_BEFORE:
            return options.hook_before is None
        if step is Step.HOOK_AFTER:
            return options.hook_after is None
        if step is Step.SOAK and (options.soak <= 0 or self._around.stop.is_set()):
            return True
        if self._ledger.kind == "converge" and not self._record.replicas:
            return step not in {Step.CONVERGE, Step.SETTLE}
        return False

    def _may_stop_before(self, step: Step) -> bool:
        """Before the drain nothing is held; after the act it is brought to a good end."""
        return step in {Step.HOOK_BEFORE, Step.CONVERGE, Step.DRAIN}

    def _failed(self, what: str, next_command: str | None, code: int = 1) -> None:
        self._record.code = code
        self._end("failed", f"failed: {what}", failure=what, next_command=next_command)

    def _end(
        self,
        state: str,
        said: str,
        *,
        failure: str | None = None,
        next_command: str | None = None,
    ) -> None:
        with self._book.changing():
            if state == "done":
                self._record.state = "done"
            else:
                self._record.state = "failed" if state == "failed" else "taken back"
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


def _converge(it: OneHost) -> str | None:
    log = it.around.store.directory / f"{it.ledger.id}-{it.record.host}.log"
    inventory = it.ledger.options.inventory
    said = it.watched(lambda: converge(it.record.host, inventory, log))
    now = it.look().seen
    wanted = it.ledger.options.models
    with it.book.changing():
        it.record.output = said
        it.record.replicas = [
            replica_record(now, one.name)
            for one in now.replicas
            if one.pending and not one.held_by and (not wanted or one.model in wanted)
        ]
    names = ", ".join(one.name for one in it.record.replicas)
    note = f"to be restarted: {names}" if names else "nothing is to be restarted"
    it.tell(note)
    return note


_DOING: Mapping[Step, Callable[[OneHost], str | None]] = {
    Step.HOOK_BEFORE: _hook_before,
    Step.CONVERGE: _converge,
    Step.DRAIN: drain_host,
    Step.ACT: acting.act,
    Step.BACK: acting.back,
    Step.WARM: proving.warm,
    Step.CHECK: proving.check,
    Step.READY: proving.ready,
    Step.SOAK: proving.soak,
    Step.SETTLE: proving.settle,
    Step.HOOK_AFTER: _hook_after,
}
