"""Restarts for health become rarer, and end."""

from __future__ import annotations

import msgspec
from farrier_agent.breaker import GaveUp, History, Limits, Restart, Wait, decide, restarted
from hypothesis import given
from hypothesis import strategies as st

LIMITS = Limits(most=3, within=3600, pause=60, factor=4)


def test_the_first_restart_is_at_once_the_next_ones_wait_and_then_it_gives_up() -> None:
    history, now = History(), 1_000_000.0
    assert decide(history, now, LIMITS) == Restart(1)
    history = restarted(history, now, LIMITS)
    assert decide(history, now + 10, LIMITS) == Wait(50)
    assert decide(history, now + 60, LIMITS) == Restart(2)
    history = restarted(history, now + 60, LIMITS)
    assert decide(history, now + 100, LIMITS) == Wait(200)
    assert decide(history, now + 300, LIMITS) == Restart(3)
    history = restarted(history, now + 300, LIMITS)
    refused = decide(history, now + 3000, LIMITS)
    assert isinstance(refused, GaveUp)
    assert "wedged again after 3 restarts within 60 min" in refused.why
    assert "farrier-agent restart" in refused.why
    assert decide(history, now + 3600, LIMITS) == Restart(3)


def test_it_is_kept_as_json() -> None:
    history = restarted(History(), 5.5, LIMITS)
    assert msgspec.json.decode(msgspec.json.encode(history), type=History) == history


@given(st.lists(st.floats(0, 50_000), min_size=1, max_size=80))
def test_never_more_restarts_than_the_limit_in_any_window(pauses: list[float]) -> None:
    history, now, made = History(), 0.0, []
    for pause in pauses:
        now += pause
        if isinstance(decide(history, now, LIMITS), Restart):
            history = restarted(history, now, LIMITS)
            made.append(now)
    for at in made:
        assert len([other for other in made if at <= other < at + LIMITS.within]) <= LIMITS.most
    assert len(history.restarts) <= LIMITS.most


def test_a_clock_that_was_set_back_neither_forgives_nor_blocks_for_ever() -> None:
    history = History((10_000.0,))
    waiting = decide(history, 100.0, LIMITS)
    assert waiting == Wait(60)
    assert decide(restarted(history, 100.0, LIMITS), 160.0 + 240, LIMITS) == Restart(3)
