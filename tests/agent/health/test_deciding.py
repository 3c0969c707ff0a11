"""Which replicas are drained for their health, taken back, or left open for want of another."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from farrier_agent.health.deciding import (
    CALM,
    Book,
    Drain,
    TakeBack,
    begun,
    decide,
    held_back,
    may_drain,
    overruled,
    taken_back,
)
from farrier_agent.status import Drain as DrainShown
from farrier_agent.status import Health, Reason, Replica, Verdict

from tests.agent.health.scene import AT, BY, REPLICAS, replaced, replica

WELL = Verdict(state="healthy")


def reason(rule: str = "gpu-lost", state: str = "unhealthy", **fields: object) -> Reason:
    told = {"text": "GPU 0 is lost", "next": "reboot the host", "since_at": AT, "gpu": "GPU-0"}
    return Reason(rule=rule, state=state, **{"acts": state == "unhealthy", **told, **fields})  # type: ignore[arg-type]


def health(**replicas: Reason | None) -> Health:
    verdicts = {
        name: Verdict(state=one.state, reasons=(one,)) if one else WELL
        for name, one in replicas.items()
    }
    told = tuple(one for one in replicas.values() if one)
    return Health(host=Verdict(state="unhealthy", reasons=told), replicas=verdicts)


def closed(one: Replica, *askers: str, phase: str = "drained") -> Replica:
    shown = DrainShown(
        asked_by=askers,
        reasons=tuple("?" for _ in askers),
        policy="extend",
        begun_at=AT,
        deadline_at=AT,
        seconds=0,
    )
    return replaced(one, phase=phase, gate="closed", drain=shown)


A, B = REPLICAS[:2]
SICK = health(a=reason(), b=None)
SOUND = health(a=None, b=None)


def test_only_the_replica_of_the_sick_gpu_is_drained_and_says_why() -> None:
    intents, book = decide(SICK, (A, B), Book(), at=AT, by=BY)
    assert intents == (Drain("a", "gpu-lost: GPU 0 is lost"),)
    # as long as it was not begun, it is still wanted
    assert decide(SICK, (A, B), book, at=AT + 5, by=BY)[0] == intents


@pytest.mark.parametrize(
    "one",
    [
        reason(state="degraded"),
        reason(state="unknown"),
        reason("replica-wedged", acts=False),
        reason(acts=False),
    ],
    ids=["degraded", "unknown", "of another part", "observes only"],
)
def test_nothing_else_drains(one: Reason) -> None:
    assert decide(health(a=one, b=None), (A, B), Book(), at=AT, by=BY)[0] == ()


@pytest.mark.parametrize("phase", ["starting", "warming", "ready"])
def test_one_that_is_about_to_serve_is_drained_too(phase: str) -> None:
    intents, _ = decide(SICK, (replaced(A, phase=phase),), Book(), at=AT, by=BY)
    assert intents == (Drain("a", "gpu-lost: GPU 0 is lost"),)


@pytest.mark.parametrize("phase", ["stopped", "failed", "draining", "drained", None])
def test_one_that_does_not_serve_is_left_as_it_is(phase: str) -> None:
    assert decide(SICK, (replaced(A, phase=phase),), Book(), at=AT, by=BY)[0] == ()


def drained_book() -> Book:
    _, book = decide(SICK, (A, B), Book(), at=AT, by=BY)
    return begun(book, "a")


def test_it_is_taken_back_after_calm_and_not_before() -> None:
    book, shut = drained_book(), closed(A, BY)
    for at in range(0, 60, 5):
        intents, book = decide(SOUND, (shut, B), book, at=AT + at, by=BY)
        assert intents == ((TakeBack("a"),) if at >= CALM else ())
    book = taken_back(book, "a", AT + 60)
    assert decide(SOUND, (A, B), book, at=AT + 65, by=BY)[0] == ()


@pytest.mark.parametrize("one", [reason(state="degraded"), None], ids=["degraded", "healthy"])
def test_degraded_is_good_enough_to_serve(one: Reason | None) -> None:
    book, shut = drained_book(), closed(A, BY)
    for at in (0, CALM):
        intents, book = decide(health(a=one), (shut,), book, at=AT + at, by=BY)
    assert intents == (TakeBack("a"),)


def test_what_is_unknown_is_not_taken_back() -> None:
    book, shut = drained_book(), closed(A, BY)
    dark = health(a=reason("data-stale", "unknown"))
    for at in range(0, 4000, 100):
        intents, book = decide(dark, (shut,), book, at=AT + at, by=BY)
        assert intents == ()
    # and calm begins to count when it is known again
    assert decide(SOUND, (shut,), book, at=AT + 4000, by=BY)[0] == ()


def test_a_drain_of_ours_that_the_book_lacks_is_taken_back_too() -> None:
    """The agent was killed before it had written that it began it, or its file was garbage."""
    book, shut = Book(), closed(A, BY)
    for at in (0, CALM):
        intents, book = decide(SOUND, (shut,), book, at=AT + at, by=BY)
    assert intents == (TakeBack("a"),)


def test_an_engine_that_crashes_while_drained_is_taken_back_all_the_same() -> None:
    book, shut = drained_book(), closed(A, BY)
    warming = replaced(shut, phase="warming")
    for at, one in enumerate((shut, warming, shut)):
        _, book = decide(SOUND, (one,), book, at=AT + at, by=BY)
    assert decide(SOUND, (shut,), book, at=AT + 10 + CALM, by=BY)[0] == (TakeBack("a"),)


def test_a_record_that_is_not_read_yet_ends_nothing() -> None:
    _, book = decide(SOUND, (replaced(A, phase=None),), drained_book(), at=AT, by=BY)
    assert "a" in book.drained


def test_a_fault_that_comes_again_begins_calm_anew() -> None:
    book, shut = drained_book(), closed(A, BY)
    for at in range(0, 1000, 5):
        now = SICK if at % 30 == 0 else SOUND
        intents, book = decide(now, (shut,), book, at=AT + at, by=BY)
        assert intents == ()


def test_each_time_within_the_hour_it_is_left_closed_for_longer() -> None:
    book, at, waits = Book(), AT, []
    for _ in range(4):
        _, book = decide(SICK, (A,), book, at=at, by=BY)
        book = begun(book, "a")
        begin = at
        intents: tuple[Drain | TakeBack, ...] = ()
        while not intents:
            at += 5
            intents, book = decide(SOUND, (closed(A, BY),), book, at=at, by=BY)
        waits.append(at - begin - 5)
        book = taken_back(book, "a", at)
    assert waits == [30, 60, 120, 240]


def test_one_that_somebody_else_wants_closed_is_not_taken_back() -> None:
    book, shut = drained_book(), closed(A, BY, "root")
    for at in (0, 100, 200):
        intents, book = decide(SOUND, (shut,), book, at=AT + at, by=BY)
        assert intents == ()


def test_one_that_was_drained_by_somebody_else_alone_is_not_ours() -> None:
    for at in (0, 100, 200):
        assert decide(SOUND, (closed(A, "root"),), Book(), at=AT + at, by=BY)[0] == ()


def test_a_person_who_makes_it_ready_is_not_contradicted_until_there_is_another_reason() -> None:
    book = overruled(drained_book(), "a", SICK)
    for at in range(0, 600, 5):
        intents, book = decide(SICK, (A,), book, at=AT + at, by=BY)
        assert intents == ()
    worse = reason("xid-reset", text="XID 119")
    assert decide(health(a=worse), (A,), book, at=AT + 600, by=BY)[0] == (
        Drain("a", "xid-reset: XID 119"),
    )
    # once it was over, the same one counts again
    _, book = decide(SOUND, (A,), book, at=AT + 600, by=BY)
    again = reason(since_at=AT + 605)
    assert decide(health(a=again), (A,), book, at=AT + 605, by=BY)[0] != ()


def test_a_restarted_engine_on_a_sick_gpu_is_drained_again() -> None:
    book = drained_book()
    for phase in ("stopped", "starting"):
        intents, book = decide(SICK, (replaced(A, phase=phase, drain=None),), book, at=AT, by=BY)
    assert intents == (Drain("a", "gpu-lost: GPU 0 is lost"),)


@pytest.mark.parametrize(
    ("answers", "still_answers", "may", "why"),
    [
        ({"gpu02": True}, True, True, "gpu02 serves its model"),
        ({"gpu02": False, "gpu03": True}, True, True, "gpu03 serves its model"),
        ({}, False, True, "it does not answer anyway"),
        ({"gpu02": False}, False, True, "it does not answer anyway"),
        ({}, True, False, "nobody else is known to serve"),
        ({"gpu02": False}, True, False, "gpu02 is not ready"),
        ({"gpu02": None}, True, False, "gpu02 does not answer"),
        ({"gpu02": None}, None, False, "stays open"),
    ],
)
def test_the_last_one_that_answers_stays_open_and_says_so(
    answers: Mapping[str, bool | None], still_answers: bool | None, may: bool, why: str
) -> None:
    allowed, words = may_drain(answers, still_answers)
    assert allowed is may
    assert why in words


def test_what_was_held_back_is_said_where_the_reason_is() -> None:
    told = held_back(SICK, "a", "nobody else serves its model")
    for verdict in (told.host, told.replicas["a"]):
        assert verdict.reasons[0].held_back == "a: nobody else serves its model"
    assert told.replicas["b"] == WELL
    assert held_back(SICK, "zzz", "?") == SICK
    assert held_back(SOUND, "a", "?") == SOUND


def test_a_clock_that_is_set_back_does_not_hold_it_closed_for_ever() -> None:
    book, shut = drained_book(), closed(replica("a", 0, 1), BY)
    _, book = decide(SOUND, (shut,), book, at=AT + 86400, by=BY)
    _, book = decide(SOUND, (shut,), book, at=AT, by=BY)
    assert decide(SOUND, (shut,), book, at=AT + CALM, by=BY)[0] == (TakeBack("a"),)
