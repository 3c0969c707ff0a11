"""The canary: the first host that was changed serves a share of the traffic, and is compared.

Its replicas have their share on every gateway before they are opened. While they are held the
gateways are looked at again and again: one that was started anew has forgotten the share and is
given it again, and one that is away for a while is counted later. At the end the share is ended and
the rollout goes on; or it becomes 0 at once, and the host turns back: then the share ends when what
was there before serves again.

The host's record says in ``shared`` who may have a share, from before the first gateway is asked
until after the last one ended it: whoever goes on with the rollout, or gives it up, ends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from farrier.rollout.canary_plan import check_gateways, check_replicas
from farrier.rollout.comparing import Comparison, compare
from farrier.rollout.errors import RefusedError, RolloutError
from farrier.rollout.gateways import ALL, Counting, Gateways, GatewaysError
from farrier.rollout.one_host import OneHost
from farrier.rollout.steps import Step, in_words
from farrier.rollout.waiting import StoppedError

__all__ = [
    "LOOK_EVERY",
    "converged",
    "end_share",
    "hold",
    "is_canary",
    "opened",
    "opening",
    "refuse",
]

BETWEEN = 1.0
"""Seconds between two attempts to reach a gateway."""
LOOK_EVERY = 5.0
"""Seconds between two looks while a canary is held."""


def is_canary(it: OneHost) -> bool:
    """It has something that was changed, and is the one that is compared."""
    return it.record.canary and bool(it.record.replicas) and it.around.gateways is not None


def refuse(
    gateways: Gateways,
    host: str,
    replicas: Iterable[tuple[str, str]],
    others: Callable[[str], tuple[str, ...]],
) -> None:
    """Before the first change: may *host* be the canary? Raises RefusedError, GatewaysError."""
    replicas = tuple(replicas)
    check_replicas(host, replicas, others, certain=False)
    try:
        check_gateways(host, replicas, others, gateways.replicas(), gateways.shares())
    except GatewaysError as error:
        raise RefusedError(f"no canary: {error.what}", error.next) from error


def converged(it: OneHost) -> None:
    """It is known what was changed: may that be compared? Raises RefusedError."""
    if not is_canary(it):
        return
    host = it.record.host
    models = [(one.name, one.model) for one in it.record.replicas]
    check_replicas(host, models, lambda model: it.around.others(model, host), certain=True)
    seen = it.look().seen
    stuck = [name for name, _ in models if (now := seen.replica(name)) is None or now.back is None]
    if stuck:
        raise RefusedError(
            f"{host} cannot be the canary: {', '.join(stuck)} could not be put back, for what was"
            " there before was never seen to serve",
            "the same with --first and another host, or without --canary",
        )


def opening(it: OneHost) -> None:
    """Before its replicas are opened: they have their share. One that is put back has none yet."""
    if is_canary(it) and not it.record.back:
        _share(it, it.ledger.options.canary or ALL)
        it.tell(f"{it.ledger.options.canary} % of the traffic on {_count(it.around.gateways)}")


def opened(it: OneHost) -> str:
    """After its replicas were opened: one that was put back takes requests as before."""
    return end_share(it) if it.record.back else ""


def end_share(it: OneHost, patience: float | None = None) -> str:
    """End its share where it has one; what could not be done, in words.

    Gateways that are away are waited for, *patience* seconds, or as long as its lease may live.
    """
    if not it.record.shared:
        return ""
    try:
        _persistently(it, ALL, patience)
    except RolloutError as error:
        said = f"the share of {', '.join(it.record.shared)} was not ended: {error.what}"
        it.tell(said)
        return said
    with it.book.changing():
        it.record.shared = []
    return ""


def hold(it: OneHost) -> str:
    """Compare it with the rest for as long as it is to be held; what came of it in words.

    A host that is worse, or of which too little was seen, turns back.
    """
    if not is_canary(it):
        return ""
    gateways = it.around.gateways
    assert gateways is not None  # noqa: S101 - is_canary says so
    watch = _Watch(it, gateways)
    for again in (False, True):
        watch.on(it.ledger.options.hold)
        found = watch.compared(final=True)
        if again or watch.why or {one.verdict for one in found} != {"not proven"}:
            break
        it.tell(f"held as long again: {found[0].why}")
    if why := watch.why or "; ".join(one.why for one in found if one.verdict != "as well"):
        try:
            _set(it, 0)  # at once: what is put back first has to be drained
        except GatewaysError as error:
            it.tell(f"it keeps its share until it is drained: {error.what}")
        it.keep_evidence(why)
        with it.book.changing():
            it.record.turn_back(why)
        return why
    said = "; ".join(one.why for one in found)
    return "; ".join(filter(None, (said, end_share(it))))  # what stays is ended with the rollout


class _Watch:
    """Looks at the canary of *it* and at *gateways*; ``why`` it is to be put back, if it is."""

    def __init__(self, it: OneHost, gateways: Gateways) -> None:
        self._it = it
        self._gateways = gateways
        self.why: str | None = None
        models = sorted({one.model for one in it.record.replicas})
        self._counting: Counting = gateways.counting(models)
        self._began = time.monotonic()

    def on(self, seconds: float) -> None:
        """Watch for *seconds*, or until it is clearly worse."""
        it, end = self._it, time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and self.why is None:
            it.on_lease()
            if it.around.stop.wait(min(LOOK_EVERY, left)):
                end_share(it)
                raise StoppedError
            self._look()
            found = self.compared(final=False)
            self.why = next((one.why for one in found if one.verdict == "worse"), self.why)
            done = sum(one.canary.answers for one in found)
            it.tell(f"{in_words(Step.HOLD)}: {done} answers, {max(0.0, left):.0f} s left")

    def compared(self, *, final: bool) -> list[Comparison]:
        """Each of its replicas against the others of its model, by now; also in the ledger."""
        it = self._it
        host, seconds = it.record.host, time.monotonic() - self._began
        found = []
        for one in it.record.replicas:
            name = f"{host}:{one.name}"
            mine, rest = self._counting.sides(name, it.around.others(one.model, host))
            found.append(compare(one.model, name, mine, rest, seconds=seconds, final=final))
        it.record.compared = found
        return found

    def _look(self) -> None:
        it = self._it
        seen = it.look().seen
        if gone := [
            one.name
            for one in it.record.replicas
            if (now := seen.replica(one.name)) is None or not now.serves
        ]:
            self.why = f"{it.record.host}: {', '.join(gone)} stopped serving while it was held"
            return
        silent: dict[str, str] = {}
        try:
            silent |= self._gateways.count(self._counting)
            # one that began anew has forgotten it; or whoever has the lease now has ended it
            it.through_cuts(it.host.confirm)
            _set(it, it.ledger.options.canary or ALL)
        except GatewaysError as error:
            silent |= dict(error.by)
        for name, why in silent.items():
            it.tell(f"gateway {name} is not counted now: {why}")


def _share(it: OneHost, percent: int) -> None:
    with it.book.changing():
        it.record.shared = [f"{it.record.host}:{one.name}" for one in it.record.replicas]
    _persistently(it, percent)


def _persistently(it: OneHost, percent: int, patience: float | None = None) -> None:
    """As :func:`_set`, again while a gateway is away, at the most *patience* seconds."""
    end = time.monotonic() + (it.ledger.options.lease + 30 if patience is None else patience)
    while True:
        try:
            _set(it, percent)
        except GatewaysError as error:
            if error.refused or time.monotonic() >= end:
                raise
            time.sleep(BETWEEN)
        else:
            return


def _set(it: OneHost, percent: int) -> None:
    """Give its replicas *percent* everywhere. Raises GatewaysError, FencedError."""
    gateways = it.around.gateways
    if gateways is None:
        raise RolloutError("the inventory has no gateway")
    for one in it.record.shared:
        it.on_lease()
        gateways.share(one, percent, rollout=it.ledger.id, holder=it.ledger.holder)


def _count(gateways: Gateways | None) -> str:
    names = gateways.names if gateways else ()
    return f"{len(names)} gateway{'s' if len(names) != 1 else ''}"
