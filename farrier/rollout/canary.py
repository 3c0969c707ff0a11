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
from collections.abc import Iterable

from farrier.rollout.comparing import Comparison, compare
from farrier.rollout.errors import RolloutError
from farrier.rollout.gateways import ALL, Counting, Gateways, GatewaysError
from farrier.rollout.one_host import OneHost
from farrier.rollout.steps import Step, in_words
from farrier.rollout.waiting import StoppedError

__all__ = ["LOOK_EVERY", "end_share", "hold", "is_canary", "opened", "opening"]

LOOK_EVERY = 5.0
"""Seconds between two looks while a canary is held."""


def is_canary(it: OneHost) -> bool:
    """It has something that was changed, and is the one that is compared."""
    return it.record.canary and bool(it.record.replicas) and it.around.gateways is not None


def opening(it: OneHost) -> None:
    """Before its replicas are opened: they have their share. One that is put back has none yet."""
    if is_canary(it) and not it.record.back:
        _share(it, it.ledger.options.canary or ALL)
        it.tell(f"{it.ledger.options.canary} % of the traffic on {_count(it.around.gateways)}")


def opened(it: OneHost) -> str:
    """After its replicas were opened: one that was put back takes requests as before."""
    return end_share(it) if it.record.back else ""


def end_share(it: OneHost) -> str:
    """End its share where it has one; what could not be done, in words. Raises nothing else."""
    if it.around.gateways is None or not it.record.shared:
        return ""
    try:
        it.through_cuts(lambda: _set(it, ALL))
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
        if again or watch.why or not _few(found):
            break
        it.tell(f"held as long again: {_few(found)[0].why}")
    if why := watch.why or "; ".join(one.why for one in found if one.verdict != "as well"):
        _set(it, 0)  # at once: what is put back first has to be drained
        it.keep_evidence(why)
        with it.book.changing():
            it.record.turn_back(why)
        return why
    said = "; ".join(one.why for one in found)
    return "; ".join(filter(None, (said, end_share(it))))


class _Watch:
    """Looks at the canary of *it* and at *gateways*. ``why`` it has to be put back, if it has to."""

    def __init__(self, it: OneHost, gateways: Gateways) -> None:
        self._it = it
        self._gateways = gateways
        self.why: str | None = None
        models = sorted({one.model for one in it.record.replicas})
        self._counting: Counting = it.through_cuts(lambda: gateways.counting(models))
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
        found = [
            compare(
                one.model,
                f"{it.record.host}:{one.name}",
                *self._counting.sides(f"{it.record.host}:{one.name}", it.around.others(one.model)),
                seconds=time.monotonic() - self._began,
                final=final,
            )
            for one in it.record.replicas
        ]
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
        silent = self._gateways.count(self._counting)
        try:
            _set(it, it.ledger.options.canary or ALL)  # one that began anew has forgotten it
        except GatewaysError as error:
            silent |= dict(error.by)
        for name, why in silent.items():
            it.tell(f"gateway {name} is not counted now: {why}")


def _few(found: Iterable[Comparison]) -> list[Comparison]:
    return [one for one in found if one.verdict == "not proven"]


def _share(it: OneHost, percent: int) -> None:
    with it.book.changing():
        it.record.shared = [f"{it.record.host}:{one.name}" for one in it.record.replicas]
    it.through_cuts(lambda: _set(it, percent))


def _set(it: OneHost, percent: int) -> None:
    """Give its replicas *percent* everywhere. Raises GatewaysError, FencedError."""
    gateways = it.around.gateways
    assert gateways is not None  # noqa: S101 - nobody has a share without one
    for one in it.record.shared:
        it.on_lease()
        gateways.share(one, percent, rollout=it.ledger.id, holder=it.ledger.holder)


def _count(gateways: Gateways | None) -> str:
    names = gateways.names if gateways else ()
    return f"{len(names)} gateway{'s' if len(names) != 1 else ''}"
