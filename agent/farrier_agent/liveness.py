"""Tells a wedged engine from a busy one, by progress. Values in, values out.

``/health`` answers 200 on a wedged vLLM, and a full queue is no fault. So an engine is *wedged*
when it has requests and nothing of its own work has moved for a while, however busy it looks:

- An engine that tells its load is judged by that: it has requests, and its progress stands still
  for ``Patience.progress`` seconds.
- When it tells of none, and yet owes answers on sockets, either a client stalls (its upload, or the
  reading of its answer), which must not be able to have an engine restarted, or the engine hangs
  without knowing: vLLM tells of a request after its first step (0.32.0 with its core stopped while
  it was idle: ``num_requests_running 0``, ``/health`` 200). It is *suspect*: somebody has to ask it
  for a generation, which an engine without requests answers at once. That moves its progress, or
  else it is wedged.
- When it told its load before and no longer answers, or never told one, only the sockets are left:
  nothing moved on any of them for ``Patience.silence`` seconds, though the engine owes an answer on
  one at least. That is much longer, for an answer that is not streamed sends nothing until it is
  whole.

A look that comes late (the machine was suspended, the agent stopped) proves nothing about the time
before it: the watch begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from farrier_agent.engines import Load

__all__ = ["Patience", "Sample", "Verdict", "Watch", "look"]


@dataclass(frozen=True)
class Patience:
    """Seconds without any progress after which an engine counts as wedged.

    ``progress`` holds where the engine tells its load; with a look every 5 s a wedged one is found
    within 30 s. A suspect one has ``probe`` seconds for its generation. ``silence`` holds where
    only its sockets are seen, and is longer than nginx lets a client stall its upload (60 s).
    ``gap``: two looks further apart are not one observation.
    """

    progress: float = 25.0
    probe: float = 8.0
    silence: float = 300.0
    gap: float = 15.0


@dataclass(frozen=True)
class Sample:
    """One look at an engine, at the second ``at`` of a clock that never goes back.

    ``run`` names the run of its unit (the InvocationID). ``sockets`` are the requests in flight as
    the kernel has them, and ``unread`` those among them with data that the other side has yet to
    read: they wait for their client, not for the engine. ``moved`` is any number that changes when
    bytes move on those sockets. ``load`` is what the engine itself tells; None when it did not
    answer, or has no such thing. ``probing`` is for how many seconds a generation that was asked of
    a suspect engine has been without an answer. None stands for what could not be seen.
    """

    at: float
    run: str
    sockets: int | None = None
    unread: int = 0
    moved: int | None = None
    load: Load | None = None
    probing: float | None = None

    @property
    def owed(self) -> int:
        """The requests on whose sockets the engine, and nobody else, has to act."""
        return max(0, (self.sockets or 0) - self.unread)

    @property
    def told(self) -> bool:
        """The engine tells enough of its own work to be judged by it."""
        return self.load is not None and None not in (self.load.requests, self.load.progress)


@dataclass(frozen=True)
class Watch:
    """What is remembered between two looks.

    ``still_since`` is when the engine was last seen to get on with its work, or to have none, for
    each of the two measures.
    """

    last: Sample | None = None
    progress_since: float = 0.0
    silence_since: float = 0.0
    tells: bool = False


@dataclass(frozen=True)
class Verdict:
    """What a look says. ``seconds`` is how long nothing has moved, ``why`` is for people.

    ``suspect`` is a request: ask the engine for a generation, and say in the next samples how long
    that has been without an answer.
    """

    state: Literal["idle", "busy", "suspect", "wedged", "unknown"]
    seconds: float = 0.0
    why: str = ""


def look(watch: Watch, sample: Sample, patience: Patience) -> tuple[Watch, Verdict]:
    """The watch after *sample*, and what it says about the engine."""
    last = watch.last
    if last is None or last.run != sample.run or not 0 <= sample.at - last.at <= patience.gap:
        fresh = Watch(sample, sample.at, sample.at, tells=sample.told)
        return fresh, _verdict(fresh, sample, patience)
    worked = _progressed(last, sample)
    watch = replace(
        watch,
        last=sample,
        # what cannot be compared (None) is no proof of standing still
        progress_since=sample.at if worked is not False else watch.progress_since,
        # tokens that move while an answer is not streamed are as good as bytes
        silence_since=sample.at if worked or _sounded(last, sample) else watch.silence_since,
        tells=watch.tells or sample.told,
    )
    return watch, _verdict(watch, sample, patience)


def _progressed(last: Sample, now: Sample) -> bool | None:
    """Work was done between two looks, or there was none to do; None when it cannot be known."""
    if last.load is None or now.load is None or not (last.told and now.told):
        return None
    if last.load.progress != now.load.progress:
        return True
    if last.load.requests and now.load.requests:
        return False
    # requests that it does not know of are work too
    return not (last.load.requests or last.owed) or not (now.load.requests or now.owed)


def _sounded(last: Sample, now: Sample) -> bool:
    """Bytes moved between two looks, or none were owed, or it cannot be known."""
    if None in (last.moved, now.moved, last.sockets, now.sockets):
        return True
    return not last.owed or not now.owed or last.moved != now.moved


def _verdict(watch: Watch, now: Sample, patience: Patience) -> Verdict:
    if now.load is not None and now.told:
        return _by_load(now, now.load, now.at - watch.progress_since, patience)
    if now.sockets is None or now.moved is None:
        return Verdict("unknown", why="neither its load nor its sockets can be seen")
    if not now.sockets:
        return Verdict("idle")
    seconds = now.at - watch.silence_since
    if seconds < patience.silence:
        return Verdict("busy", seconds)
    silent = ", and no answer on its metrics any more" if watch.tells else ""
    what = f"{now.sockets} requests in flight, no byte moved{silent}"
    return Verdict("wedged", seconds, f"{what} for {seconds:.0f} s")


def _by_load(now: Sample, load: Load, seconds: float, patience: Patience) -> Verdict:
    """The verdict on an engine that tells its *load* and stands still for *seconds*."""
    if load.requests:
        if seconds < patience.progress:
            return Verdict("busy", seconds)
        what = f"{load.running} running and {load.waiting} waiting requests, no progress"
        return Verdict("wedged", seconds, f"{what} for {seconds:.0f} s")
    if not now.owed:
        return Verdict("idle")
    if seconds < patience.progress / 2:
        return Verdict("busy", seconds)
    what = f"{now.owed} requests in flight that it does not know of"
    if seconds < patience.progress or now.probing is None or now.probing < patience.probe:
        return Verdict("suspect", seconds, what)
    why = f"{what}, no progress for {seconds:.0f} s, and no generation in {now.probing:.0f} s"
    return Verdict("wedged", seconds, why)
