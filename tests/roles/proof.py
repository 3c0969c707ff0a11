"""What has to be true of :mod:`.traffic` that ran through a change, and when it is at work."""

from __future__ import annotations

import pytest

from tests.roles.fleet import Fleet, until
from tests.roles.traffic import Traffic

__all__ = ["assert_nothing_lost", "at_work"]


def at_work(traffic: Traffic) -> None:
    """Return when most streams run, the uploads are half-way, and something was served."""
    plan = traffic.plan
    until(lambda: traffic.at_work("stream") >= plan.streams * 0.8, 60, "streams run")
    until(lambda: not plan.posts or traffic.counts()["post", "whole"], 60, "a POST is answered")


def assert_nothing_lost(
    fleet: Fleet, host: str, traffic: Traffic, *, counted: bool = True, listens: bool = True
) -> None:
    """Who was let in was served to the end, and once; who was not was told so, and not executed.

    *counted*: the engine keeps an account. *listens*: nginx was there all the time.
    """
    counts = traffic.counts()
    print(f"{host}:", ", ".join(f"{kind} {end} {n}" for (kind, end), n in sorted(counts.items())))
    faults = traffic.faults(fleet.executed(host, traffic) if counted else None)
    if listens:
        faults += [str(one) for one in traffic.of("unreached") + traffic.of("unanswered")]
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)
    for kind, asked in vars(traffic.plan).items():
        if kind in {"streams", "posts", "uploads"} and asked:
            served = counts[kind.removesuffix("s"), "whole"]
            assert served, f"no one of the {kind} was ever served: this shows nothing"
