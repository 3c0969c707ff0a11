"""The drain of one host: not before the others have room, and taken back when it is called off."""

from __future__ import annotations

import time

from farrier.rollout.errors import RolloutError
from farrier.rollout.one_host import OneHost
from farrier.rollout.waiting import StoppedError

__all__ = ["drain_host"]


def drain_host(it: OneHost) -> str | None:
    """Drain what is still to be acted upon; what came of it in words."""
    it.around.room(it.record, it.wants_to_go_on)
    look = it.look()
    record, options = it.record, it.ledger.options
    it.remember(look)
    names = it.to_act_on(look.seen)
    if not names:
        return "nothing is left to drain"
    began = time.monotonic()

    def drain() -> None:
        done = it.host.drain(
            names,
            it.ledger.id,
            deadline=options.deadline,
            on_deadline=options.on_deadline,
            on_news=it.news,
        )
        for result in done.results:
            if result.code or result.state not in {"drained", "stopped", "failed"}:
                it.host.confirm()
                raise RolloutError(
                    f"{record.host}:{result.replica}: not drained: {result.state}"
                    f"{': ' if result.text else ''}{result.text}",
                    f"farrier status {record.host}",
                )
            one = it.replica(result.replica)
            one.in_flight = result.in_flight
            one.drain_seconds = (
                result.seconds if result.seconds is not None else time.monotonic() - began
            )
            one.cut = result.cut

    try:
        # a drain joins the one that is under way: asked twice is once
        it.watched(lambda: it.through_cuts(drain), stoppable=True)
    except StoppedError:
        it.tell("stopped: taken back")
        it.through_cuts(lambda: it.host.ready(names, it.ledger.id, timeout=60))
        raise
    return f"{sum(it.replica(name).in_flight or 0 for name in names)} in flight"
