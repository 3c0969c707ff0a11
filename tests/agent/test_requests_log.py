"""What nginx's lines count as. That nginx writes them like this: tests/roles/test_requests_told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from farrier_agent.collectors.requests_log import (
    FIRST_BYTE_BOUNDS,
    SECONDS_BOUNDS,
    ReplicaRequests,
    Tally,
    broken_connection,
)
from hypothesis import example, given
from hypothesis import strategies as st

MODELS = {"tiny": "org/tiny", "big": "big"}
HEAD = b"<190>Nov 21 21:33:06 farrier: "
ERROR = b"<187>Nov 21 21:33:06 farrier_error: 2026/11/21 21:33:06 [error] 5583#5583: *%d %s"
BROKE = b"upstream prematurely closed connection while reading upstream, client: 127.0.0.1, server:"


def line(**fields: Any) -> bytes:
    """As nginx 1.22.1 told a whole answer of tiny; *fields* are others."""
    told = {
        "connection": 25,
        "replica": "tiny",
        "code": "200",
        "completion": "OK",
        "seconds": 1.204,
        "engine_first_byte": "0.020",
        "engine_seconds": "1.203",
    }
    return HEAD + json.dumps(told | fields).encode()


def taken(*messages: bytes) -> Tally:
    tally = Tally(MODELS)
    for message in messages:
        tally.take(message)
    return tally


def tiny(*messages: bytes) -> ReplicaRequests:
    return taken(*messages).shown().replicas[0]


REFUSED: dict[str, Any] = {"seconds": 0.0, "engine_first_byte": "", "engine_seconds": ""}


def test_a_whole_answer_is_counted_by_code_and_time() -> None:
    one = tiny(line(), line(code="404"), line())
    assert (one.replica, one.model) == ("tiny", "org/tiny")
    assert one.codes == {"200": 2, "404": 1}
    assert one.incomplete == {"client": 0, "engine": 0}
    assert one.seconds.sum == pytest.approx(3 * 1.204)
    assert one.first_byte.sum == pytest.approx(3 * 0.020)
    # 1.204 s is first below 2.5, 0.02 below 0.025
    assert one.seconds.cumulative == (0, 0, 0, 0, 0, 3, 3, 3, 3, 3, 3, 3, 3, 3)
    assert one.first_byte.cumulative == (0, *[3] * 12)


@pytest.mark.parametrize("code", ["401", "413", "429", "503"])
def test_what_nginx_refused_itself_is_in_no_histogram(code: str) -> None:
    one = tiny(line(code=code, **REFUSED))
    assert one.codes == {code: 1}
    assert one.seconds.cumulative[-1] == one.first_byte.cumulative[-1] == 0


def test_an_engine_that_never_answered_is_in_the_durations_alone() -> None:
    one = tiny(
        line(code="504", engine_first_byte="-"),
        line(code="499", engine_first_byte="-", completion=""),
    )
    assert (one.seconds.cumulative[-1], one.first_byte.cumulative[-1]) == (2, 0)
    assert one.incomplete == {"client": 1, "engine": 0}


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (0.05, 0), (0.051, 1), (600.0, 12), (600.001, 13), (7200.0, 13)],
)
def test_a_bound_belongs_to_its_bucket(seconds: float, bucket: int) -> None:
    cumulative = tiny(line(seconds=seconds)).seconds.cumulative
    assert len(cumulative) == len(SECONDS_BOUNDS) + 1
    assert cumulative.index(1) == bucket


def test_of_several_attempts_the_last_one_answered() -> None:
    assert tiny(line(engine_first_byte="0.001, 0.5 : 0.25")).first_byte.sum == 0.25
    assert tiny(line(engine_first_byte="0.001 : -")).first_byte.cumulative[-1] == 0


@pytest.mark.parametrize(
    "why",
    [
        b"upstream prematurely closed connection while reading upstream",
        b"upstream timed out (110: Connection timed out) while reading upstream",
        b"recv() failed (104: Connection reset by peer) while reading upstream",
        b"upstream sent invalid chunked response while reading upstream",
        b"upstream prematurely closed connection while sending to client",
    ],
)
def test_an_answer_that_the_engine_broke_off_is_incomplete_although_nginx_logs_it_as_whole(
    why: bytes,
) -> None:
    error = ERROR % (25, why + b", client: 127.0.0.1, server: _, request")
    one = tiny(line(), error, line(), line(), line(connection=26))
    assert (one.codes, one.incomplete) == ({"200": 4}, {"client": 0, "engine": 1})


@pytest.mark.parametrize(
    "why",
    [
        b"connect() failed (111: Connection refused) while connecting to upstream, client: ::1",
        b"upstream prematurely closed connection while reading response header from upstream,"
        b" client: ::1",
        b'open() "/x" failed (2: No such file), client: ::1, request: "GET /*25 while reading'
        b' upstream, client: "',
        b"limiting connections, client: ::1, server: _",
    ],
)
def test_other_errors_make_no_answer_incomplete(why: bytes) -> None:
    tally = taken(ERROR % (25, why), line())
    assert tally.shown().replicas[0].incomplete == {"client": 0, "engine": 0}
    assert tally.lines["error"] == 1


def test_a_client_cannot_name_another_connection() -> None:
    said = b'x failed, client: 127.0.0.1, request: "GET / *9 x while reading upstream, client: '
    assert broken_connection((ERROR % (1, said)).partition(b": ")[2]) is None


def test_broken_connections_whose_line_never_comes_are_forgotten() -> None:
    tally = taken(*(ERROR % (number, BROKE) for number in range(1025)))
    tally.take(line(connection=0))
    tally.take(line(connection=1024))
    assert tally.shown().replicas[0].incomplete == {"client": 0, "engine": 1}


def test_what_is_no_replicas_is_told_apart_and_named_nowhere() -> None:
    tally = taken(line(replica=""), line(replica="x" * 1500), line(replica="big"))
    shown = tally.shown()
    assert [(one.replica, one.codes) for one in shown.replicas] == [
        ("tiny", {}),
        ("big", {"200": 1}),
    ]
    assert shown.lines == {"counted": 1, "other": 2, "error": 0, "refused": 0, "garbled": 0}


GARBAGE = [
    b"", b"{", b"<190>Nov 21 21:33:06 other: {}", HEAD, HEAD + b"{}", HEAD + b"[]", line()[:-9],
    line(code="20"), line(code="2000"), line(code=200), line(code="2x0"), line(seconds="1"),
    line(seconds=-1), line(seconds=1e9), line(replica=None), line(connection="1"),
    line().replace(b"tiny", b"\xff"), HEAD + b"[" * 1500,
]  # fmt: skip


@pytest.mark.parametrize("message", GARBAGE)
def test_garbage_is_counted_as_such(message: bytes) -> None:
    tally = taken(message, line())
    assert (tally.lines["garbled"], tally.lines["counted"]) == (1, 1)


@given(st.binary() | st.binary().map(HEAD.__add__) | st.binary().map((ERROR % (1, b"")).__add__))
@example(ERROR % (10**30, BROKE))
def test_nothing_that_is_sent_raises(message: bytes) -> None:
    tally = taken(message)
    assert sum(tally.lines.values()) == 1


@given(st.lists(st.floats(0, 2000), max_size=30))
def test_buckets_are_cumulative_and_end_at_their_count(times: list[float]) -> None:
    one = tiny(*(line(seconds=each, engine_first_byte=f"{each:.3f}") for each in times))
    for histogram, bounds in ((one.seconds, SECONDS_BOUNDS), (one.first_byte, FIRST_BYTE_BOUNDS)):
        assert histogram.cumulative[-1] == len(times)
        assert list(histogram.cumulative) == sorted(histogram.cumulative)
        assert histogram.bounds == bounds


def test_a_replica_that_stays_keeps_its_counts_and_one_with_another_model_begins_anew() -> None:
    tally = taken(line(), line(replica="big"))
    tally.serve({"big": "bigger", "tiny": "org/tiny", "new": "x"})
    shown = {one.replica: one.codes for one in tally.shown().replicas}
    assert shown == {"big": {}, "tiny": {"200": 1}, "new": {}}
    assert tally.lines["counted"] == 2
