"""After the act: is it warm, as well as before, ready, and does it stay so?"""

from __future__ import annotations

import time

from farrier.fleet import ShellError
from farrier.rollout import canary
from farrier.rollout.counts import in_between
from farrier.rollout.errors import FencedError, RolloutError
from farrier.rollout.gating import check_gates, cold_gate, early_gates
from farrier.rollout.judging import not_warm, problems, soaked
from farrier.rollout.one_host import OneHost
from farrier.rollout.plan import BOARDS, LETS_GO, Kind
from farrier.rollout.steps import Step, in_words

__all__ = ["check", "ready", "settle", "soak", "warm"]

WARM_SECONDS = 1800.0
"""How long a replica may take until it has generated, where its agent gave no verdict before."""
HELD_SECONDS = 60.0
"""How long the agent may take to see that a GPU is well again, and to let go of its replicas."""
MENDS: frozenset[Kind] = BOARDS | {"reboot"}
"""What is done although the agent keeps replicas drained for a GPU: it may mend that GPU."""
SOAK_LOOK = 5.0
"""Seconds between two looks at a host that soaks."""


def warm(it: OneHost) -> None:
    """Wait until every replica has generated in its new run."""
    end = time.monotonic() + WARM_SECONDS
    began = time.monotonic()

    def wait() -> None:
        while True:
            now = it.look().seen
            waits = list(not_warm(it.record, now))
            if not waits:
                return
            failed = [
                one.name
                for one in it.record.replicas
                if (state := now.replica(one.name)) and state.phase == "failed"
            ]
            if failed or time.monotonic() >= end:
                what = "; ".join(waits)
                name = failed[0] if failed else waits[0].split(":", 1)[0]
                raise RolloutError(f"{it.record.host}: {what}", it.look_into(name))
            it.tell(f"{in_words(Step.WARM)}: {waits[0]}")
            time.sleep(1)

    try:
        it.watched(wait)
    except FencedError:
        raise
    except RolloutError as error:
        if it.kind in LETS_GO:
            cold_gate(it, error)
        it.keep_evidence("it did not become warm")
        raise
    if it.ledger.kind in {"reboot", "driver"}:
        for one in it.record.replicas:
            one.warm_seconds = time.monotonic() - began


def check(it: OneHost) -> str:
    """Compare the host with how it was; how it is in words."""
    if it.kind in LETS_GO:
        return check_gates(it)
    look = it.look()
    now, record = look.seen, it.record
    record.boot_after = now.boot_id
    record.agent_after = now.agent
    for one in record.replicas:
        if state := now.replica(one.name):
            one.invocation_after = state.invocation
            one.configuration_after = state.configuration
            one.verdict_after = state.verdict
    if bad := list(problems(it.kind, record, now)):
        it.keep_evidence(bad[0])
        raise RolloutError(
            f"{record.host}: not as well as before, so it stays closed: {'; '.join(bad)}",
            f"farrier status {record.host}",
        )
    verdict = now.verdict or "no verdict"
    if it.kind == "reboot" and record.fingerprint_before is not None:
        early_gates(it, {})
        return f"{verdict}; {check_gates(it)}"
    return verdict


def ready(it: OneHost) -> str:
    """Open the gates again; what somebody else wants closed meanwhile stays so, in words."""
    names = [one.name for one in it.record.replicas]

    end = time.monotonic() + HELD_SECONDS

    def ready() -> str:
        while True:
            done = it.host.ready(names, it.ledger.id)
            bad = [one for one in done.results if one.code]
            held = _held_by_others(it) if bad and it.kind in MENDS else frozenset[str]()
            bad, waits = [one for one in bad if one.replica not in held], bad
            if bad or not waits or time.monotonic() >= end:
                break
            it.tell(f"waiting: {waits[0].replica}: {waits[0].text}")
            time.sleep(1)
        if bad:
            it.host.confirm()
            said = "; ".join(f"{one.replica}: {one.state}: {one.text}" for one in bad)
            raise RolloutError(f"{it.record.host}: {said}", it.look_into(bad[0].replica))
        return "; ".join(
            f"{one.replica} stays {one.state}: {one.text}"
            for one in done.results
            if one.state != "ready"
        )

    canary.opening(it)
    # it is ready, or it becomes so: asked twice is once
    said = it.watched(lambda: it.through_cuts(ready))
    return "; ".join(filter(None, (said, canary.opened(it))))


def _held_by_others(it: OneHost) -> frozenset[str]:
    """The replicas that somebody else keeps drained: the agent itself, for a GPU, or a person."""
    return frozenset(one.name for one in it.look().seen.replicas if one.held_by)


def soak(it: OneHost) -> str:
    """Watch it serve for a while; what it showed in words."""
    start, end = it.look(), time.monotonic() + it.ledger.options.soak
    it.count(start)
    look = start

    def wait() -> None:
        nonlocal look
        while (left := end - time.monotonic()) > 0 and not it.around.stop.is_set():
            it.around.stop.wait(min(SOAK_LOOK, left))
            look = it.look()
            if gone := [
                one.name
                for one in it.record.replicas
                if (state := look.seen.replica(one.name)) is None
                or not (state.serves or (it.kind in MENDS and state.held_by))
            ]:
                raise RolloutError(
                    f"{it.record.host}: while it soaked {', '.join(gone)} stopped serving",
                    it.look_into(gone[0]),
                )
            it.tell(f"{in_words(Step.SOAK)}: {max(0.0, left):.0f} s left")

    it.watched(wait)
    it.count(look)
    since = in_between(start.counts, look.counts) if start.counts and look.counts else None
    found = soaked(it.record.counts_before, since)
    it.record.soak = found.line
    if found.bad:
        _close_again(it, found.bad)
        raise RolloutError(
            f"{it.record.host}: worse than before: {found.bad}",
            f"farrier logs {it.record.host}",
        )
    return found.line


def _close_again(it: OneHost, why: str) -> None:
    """What serves worse than before is drained, where the others can carry the load."""
    names = [one.name for one in it.record.replicas]
    it.keep_evidence(why)
    try:
        it.around.room(it.record, lambda: None)
        it.host.drain(names, it.ledger.id, deadline=None, on_deadline=None, on_news=it.news)
    except (RolloutError, ShellError) as error:
        it.tell(f"it goes on serving: {getattr(error, 'what', error)}")


def settle(it: OneHost) -> None:
    """Take the durable mark away."""
    it.watched(lambda: it.through_cuts(it.host.settle))
