"""HTTP/2's ways to end an answer, and its one case in which a request is sent again."""

from __future__ import annotations

import asyncio

import pytest

from farrier.load import Endpoint, Ledger, Outcome, Plan, run
from farrier.load.goaway import Goaway
from tests.fakes.rude2 import Rude2


def ask(port: int, requests: int = 1) -> Ledger:
    """So many short POSTs, one after another."""
    plan = Plan(
        models=("tiny",),
        streams=0,
        uploads=0,
        fresh=0.0,
        posts=1,
        pause=0.01,
        requests=requests,
        seconds=20.0,
        patience=20.0,
        after_refusal=0.01,
        http2=True,
    )
    return asyncio.run(run(plan, Endpoint(f"http://127.0.0.1:{port}")))


@pytest.mark.parametrize(
    ("manner", "outcome", "detail"),
    [
        ("well", "complete", ""),
        ("leaving", "complete", ""),
        ("reset", "dropped", "reset the stream"),
        ("cut", "incomplete", "reset the stream"),
        ("close", "dropped", "closed before a byte"),
        ("garbage", "wrong", "not HTTP/2"),
        ("refused", "dropped", "REFUSED_STREAM"),
        ("goaway", "dropped", "GOAWAY"),
    ],
)
def test_an_answer_is_what_it_is(manner: str, outcome: Outcome, detail: str) -> None:
    with Rude2(manner) as server:
        (request,) = ask(server.port).requests
    assert request.outcome == outcome, request
    assert detail in request.detail
    untouched = manner in {"refused", "goaway"}
    assert request.repeats == (3 if untouched else 0)
    assert server.requests == [request.name] * (4 if untouched else 1)


@pytest.mark.parametrize(("manner", "connections"), [("refused", 1), ("goaway", 2)])
def test_what_the_server_did_not_touch_is_sent_again_and_counted(
    manner: str, connections: int
) -> None:
    with Rude2(manner, "well") as server:
        ledger = ask(server.port, 2)
    assert ledger.outcomes == {"complete": 2}
    assert [one.repeats for one in ledger.requests] == [1, 0]
    assert ledger.to_json()["repeats"] == 1
    assert server.connections == connections


def test_a_server_that_leaves_gets_no_new_request() -> None:
    with Rude2("leaving", "well") as server:
        ledger = ask(server.port, 2)
    assert ledger.outcomes == {"complete": 2}
    assert (server.connections, ledger.to_json()["repeats"]) == (2, 0)


def test_goaway_is_found_wherever_the_bytes_are_cut() -> None:
    data = b"\x00\x00\x03\x00\x01\x00\x00\x00\x01abc"
    goaway = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x80\x00\x00\x05\x00\x00\x00\x00"
    for size in range(1, len(data + goaway + data)):
        frames, said = Goaway(), data + goaway + data
        kept = b"".join(frames.without(said[at : at + size]) for at in range(0, len(said), size))
        assert (kept, frames.last) == (data + data, 5)
