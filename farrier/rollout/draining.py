"""The drain of one host: not before the others have room, and taken back when it is called off."""

from __future__ import annotations

import time

from farrier_agent.control.protocol import News, Progress

from farrier.rollout.errors import CutOffError, RolloutError
from farrier.rollout.ledger import HostRecord
from farrier.rollout.one_host import OneHost
from farrier.rollout.seen import HostSeen, ReplicaSeen
from farrier.rollout.waiting import StoppedError

__all__ = ["count_lost", "drain_host", "lost_in_drain"]


def drain_host(it: OneHost) -> str | None:
    """Drain what is still to be acted upon; what came of it in words."""
    record, options = it.record, it.ledger.options
    # what was begun is brought to a good end
    back = it.kind == "driver-back"
    it.around.room(record, it.on_lease if back else it.wants_to_go_on)
    look = it.look()
    it.remember(look)
    names = it.to_act_on(look.seen)
    if back:  # what does not come up behind its closed gate has nothing to be drained
        names = tuple(name for name in names if _may_serve(look.seen.replica(name)))
    if not names:
        return "nothing is left to drain"
    began = time.monotonic()

    def hear(news: News) -> None:
        if isinstance(news, Progress) and news.in_flight is not None:
            it.replica(news.replica).heard = news.in_flight
        it.news(news)

    def drain() -> None:
        done = it.host.drain(
            names,
            it.ledger.id,
            deadline=options.deadline,
            on_deadline=options.on_deadline,
            on_news=hear,
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
            one.in_flight, one.heard = result.in_flight, None
            one.drain_seconds = (
                result.seconds if result.seconds is not None else time.monotonic() - began
            )
            one.cut = result.cut

    try:
        # a drain joins the one that is under way: asked twice is once
        it.watched(lambda: it.through_cuts(drain), stoppable=not back)
    except CutOffError as error:
        heard = sum(it.replica(name).heard or 0 for name in names)
        raise CutOffError(
            f"{error.what}; {heard} were in flight when it was last heard of: lost, if it went down"
        ) from error
    except StoppedError:
        it.tell("stopped: taken back")
        it.through_cuts(lambda: it.host.ready(names, it.ledger.id, timeout=60))
        raise
    return f"{sum(it.replica(name).in_flight or 0 for name in names)} in flight"


def _may_serve(one: ReplicaSeen | None) -> bool:
    """Requests may be in flight there."""
    return one is not None and (one.gate_open is not False or one.phase in {"ready", "draining"})


def count_lost(it: OneHost, seen: HostSeen) -> None:
    """Count as cut what was in flight on a host that went down while it drained."""
    for name, lost in lost_in_drain(it.record, seen).items():
        one = it.replica(name)
        with it.book.changing():
            one.cut, one.heard = one.cut + lost, None
        it.tell(f"it went down while {name} drained: {lost} requests were lost")


def lost_in_drain(record: HostRecord, seen: HostSeen) -> dict[str, int]:
    """By replica: the requests that were in flight when the host went down, if it did. Pure."""
    if None in (record.boot_before, seen.boot_id) or record.boot_before == seen.boot_id:
        return {}
    return {one.name: one.heard for one in record.replicas if one.heard}
