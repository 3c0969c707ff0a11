"""The speed of an engine, measured on a stand-in whose speed is known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from farrier_agent.fingerprint.made import Speed
from farrier_agent.fingerprint.speed import MeasureError, measure

from tests.agent.host import free_port
from tests.agent.standin import engine


def measured(port: int, seconds: float = 1.5, others: Callable[[], int] = lambda: 0) -> Speed:
    return asyncio.run(
        measure(port, replica="tiny", model="tiny", engine="vllm", seconds=seconds, others=others)
    )


def test_tokens_a_second_and_the_first_one() -> None:
    with engine("--token-delay=0.02") as (client, _):
        one = measured(client.port)
        # a machine that is busy makes it slower, never faster
        assert 5 < one.tokens_per_second <= 51
        assert 0 < one.first_token_seconds < 1.5
        assert one.requests >= 1
        assert one.quiet
        slow = client.manners(token_delay=0.1)
        assert slow[0] == 200
        assert measured(client.port).tokens_per_second <= 10.5


def test_others_are_told_with_their_most() -> None:
    counts = iter([0, 3, 1])
    with engine("--token-delay=0.001") as (client, _):
        one = measured(client.port, others=lambda: next(counts, 1))
    assert (one.others, one.quiet) == (3, False)


def test_an_engine_that_generates_nothing_is_no_number() -> None:
    with pytest.raises(MeasureError, match="tiny was not measured"):
        measured(free_port())
    with engine() as (client, _):
        client.manners(answers="503")
        with pytest.raises(MeasureError, match="it answers 503"):
            measured(client.port)
        client.manners(answers="break", token_delay=0.0)
        with pytest.raises(MeasureError, match="tiny was not measured"):
            measured(client.port)
