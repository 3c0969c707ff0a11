"""What a drain is for: restart the engines, reboot the host, or run a command there."""

from __future__ import annotations

import time

from farrier_agent.control.protocol import News, Progress

from farrier.fleet import LostError, NoAnswerError, ShellError
from farrier.rollout.boards import diagnose, reset
from farrier.rollout.errors import RefusedError, RolloutError
from farrier.rollout.one_host import OneHost
from farrier.rollout.records import ReplicaRecord
from farrier.rollout.resuming import still_to_restart
from farrier.rollout.seen import HostSeen

__all__ = ["act", "back", "reboot_host"]


def act(it: OneHost) -> str | None:
    """Do it; what came of it in words."""
    look = it.look()
    it.count(look)
    seen = look.seen
    match it.kind:
        case "restart" | "converge" | "rollback":
            _restart(it, seen)
        case "reboot":
            reboot_host(it)
        case "run":
            return _run_command(it)
        case "gpu-reset":
            return reset(it)
        case "gpu-diag":
            return diagnose(it)
    return None


def _restart(it: OneHost, seen: HostSeen) -> None:
    names = still_to_restart(it.record, seen)
    runs = {one.name: _to_end(one, seen) for one in map(it.replica, names)}
    if not runs:
        return
    seconds = _Phases()

    def hear(news: News) -> None:
        if isinstance(news, Progress):
            seconds.hear(news)
        it.news(news)

    def restart() -> None:
        done = it.host.restart(runs, on_news=hear)
        bad = [one for one in done.results if one.code]
        if bad:
            it.host.confirm()
            it.keep_evidence(bad[0].text or "it did not come back")
            said = "; ".join(f"{one.replica}: {one.state}: {one.text}" for one in bad)
            raise RolloutError(f"{it.record.host}: {said}", it.look_into(bad[0].replica))

    try:
        # each is named with the run that is to end: asked twice, it is restarted once
        it.watched(lambda: it.through_cuts(restart))
        for name in names:
            it.replica(name).failing = False
    finally:
        for name in names:
            one = it.replica(name)
            one.stop_seconds, one.start_seconds, one.warm_seconds = seconds.of(name)


def _to_end(one: ReplicaRecord, seen: HostSeen) -> str | None:
    """The run of *one* that is to end; None: whichever it is in."""
    if one.failing:
        return None  # the run of one that does not come up changes by itself
    now = seen.replica(one.name)
    return now.invocation if now and now.older else one.invocation_before


def reboot_host(it: OneHost) -> None:
    """Mark it and reboot it; the connection goes with it."""
    it.host.away.set()
    try:
        it.watched(it.host.reboot)
    except (LostError, NoAnswerError):
        it.tell("the connection went with it")
    except BaseException:
        it.host.away.clear()
        raise


def _run_command(it: OneHost) -> str | None:
    command = it.ledger.options.command
    try:
        ran = it.watched(lambda: it.host.run(command))
    except (LostError, NoAnswerError):
        it.tell("the connection was lost under the command: waiting for its end")
        return it.watched(lambda: _end_of_command(it))
    it.record.output = ran.output
    if ran.status:
        last = "; ".join(ran.output.strip().splitlines()[-3:])
        raise RolloutError(
            f"{it.record.host}: the command ended with {ran.status}: {last}",
            f"farrier rollout show {it.ledger.id}",
        )
    return f"exit code 0 after {ran.seconds:.1f} s"


def _end_of_command(it: OneHost) -> str:
    """How the command ended, from the host's audit. Raises RolloutError where it failed."""
    while True:
        outcome = it.through_cuts(lambda: it.host.outcome_of_run(it.ledger.id))
        if outcome is None:
            time.sleep(1)
        elif outcome.startswith("done"):
            return outcome
        else:
            raise RolloutError(f"{it.record.host}: the command: {outcome}")


def back(it: OneHost) -> None:
    """Wait until a rebooted host is back, and take its lease again."""
    record, end = it.record, time.monotonic() + it.ledger.options.reboot_seconds
    it.host.away.set()

    def wait() -> None:
        while True:
            try:
                now = it.host.look().seen
                if now.boot_id and now.boot_id != record.boot_before:
                    record.boot_after = now.boot_id
                    it.around.leases.take(it.host)
                    return
                said = "it has not gone down yet"
            except (ShellError, RolloutError) as error:
                if isinstance(error, RefusedError):
                    raise
                said = getattr(error, "what", str(error))
            if time.monotonic() >= end:
                raise RolloutError(
                    f"{record.host}: not back {it.ledger.options.reboot_seconds:.0f} s after"
                    f" its reboot: {said}",
                    f"its console; then farrier rollout resume {it.ledger.id}",
                )
            time.sleep(1)

    try:
        it.watched(wait, fenced=False)
    finally:
        it.host.away.clear()


class _Phases:
    """How long a replica took to stop, to start and to become warm, from its progress."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._at: dict[tuple[str, str], float] = {}
        self._last: dict[str, float] = {}

    def hear(self, news: Progress) -> None:
        now = time.monotonic()
        self._at.setdefault((news.replica, news.state), now)
        self._last[news.replica] = now

    def of(self, name: str) -> tuple[float | None, float | None, float | None]:
        """Seconds to stop, to start, to become warm; None where it was not seen."""
        stopped = self._at.get((name, "stopped")) or self._at.get((name, "starting"))
        starting = self._at.get((name, "starting")) or stopped
        warming = self._at.get((name, "warming"))
        end = self._last.get(name)
        return (
            stopped - self._began if stopped else None,
            warming - starting if warming and starting else None,
            end - warming if warming and end and end >= warming else None,
        )
