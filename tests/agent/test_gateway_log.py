"""What HAProxy's lines count as. That HAProxy writes them like this: test_gateway_told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from farrier_agent.collectors.gateway_log import (
    FIRST_BYTE_BOUNDS,
    MOST_KEYS,
    MOST_REPLICAS,
    SECONDS_BOUNDS,
    GatewayTally,
    LineError,
    ModelRequests,
    parse,
)
from hypothesis import example, given
from hypothesis import strategies as st

MODELS = ("org/tiny", "big")


def line(**fields: Any) -> bytes:
    """As HAProxy 2.6.12 told a whole stream of tiny; *fields* are others."""
    told: dict[str, Any] = {
        "time": 1795309262.104,
        "model": "org/tiny",
        "replica": "gpu01:tiny",
        "key": "alice",
        "client": "198.18.0.1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "termination": "--",
        "request_ms": 40,
        "queue_ms": 100,
        "connect_ms": 1,
        "first_byte_ms": 20,
        "total_ms": 1204,
        "bytes": 1372,
        "request_bytes": 163,
        "retries": "0",
        "request_id": "9f",
        "prompt_tokens": 11,
        "completion_tokens": 7,
    }
    return json.dumps(told | fields).encode() + b"\n"


REFUSED: dict[str, Any] = {
    "replica": "",
    "termination": "PR",
    "queue_ms": -1,
    "connect_ms": -1,
    "first_byte_ms": -1,
    "total_ms": 0,
    "prompt_tokens": -1,
    "completion_tokens": None,
}


def taken(*messages: bytes) -> GatewayTally:
    tally = GatewayTally(MODELS)
    for message in messages:
        tally.take(message)
    return tally


def tiny(*messages: bytes) -> ModelRequests:
    return taken(*messages).shown().models[0]


def test_a_whole_answer_is_counted_by_key_and_code_with_its_times_and_tokens() -> None:
    one = tiny(line(), line(key="bob", retries="+2"), line(status=404))
    assert one.model == "org/tiny"
    assert one.codes == {("alice", "200"): 1, ("alice", "404"): 1, ("bob", "200"): 1}
    assert one.tokens == {
        ("alice", "completion"): 14,
        ("alice", "prompt"): 22,
        ("bob", "completion"): 7,
        ("bob", "prompt"): 11,
    }
    assert one.incomplete == {"client": 0, "server": 0}
    assert one.retries == 2
    # the 404 is in no histogram
    assert one.seconds.sum == pytest.approx(2 * 1.204)
    assert one.first_byte.sum == pytest.approx(2 * 0.121)
    assert one.seconds.cumulative == (0, 0, 0, *[2] * 8)
    assert one.first_byte.cumulative == (0, 0, *[2] * 9)


@pytest.mark.parametrize("code", [400, 401, 403, 413, 429, 503])
def test_what_the_gateway_refuses_is_in_no_histogram_and_nobodys_tokens(code: int) -> None:
    one = tiny(line(status=code, **REFUSED))
    assert one.codes == {("alice", str(code)): 1}
    assert one.seconds.cumulative[-1] == one.first_byte.cumulative[-1] == 0
    assert (one.tokens, one.incomplete) == ({}, {"client": 0, "server": 0})


def test_what_haproxy_answers_itself_is_in_no_histogram() -> None:
    one = tiny(line(**REFUSED | {"termination": "LR"}))
    assert (one.codes, one.seconds.cumulative[-1]) == ({("alice", "200"): 1}, 0)


# of the configuration manual, 8.5, with what 2.6.12 and 3.0.11 showed as status
STATES = [
    ("--", 200, "200", None),
    ("LR", 200, "200", None),
    ("PR", 403, "403", None),
    ("CR", 400, "499", None),
    ("cR", 408, "408", None),
    ("CQ", 503, "499", None),
    ("sQ", 503, "503", None),
    ("CC", -1, "499", None),
    ("SC", 503, "503", None),
    ("CH", 400, "499", "client"),
    ("cH", 408, "408", "client"),
    ("SH", 502, "502", None),
    ("sH", 504, "504", None),
    ("CD", 200, "200", "client"),
    ("cD", 200, "200", "client"),
    ("CL", 200, "200", "client"),
    ("SD", 200, "200", "server"),
    ("sD", 200, "200", "server"),
    ("DD", 200, "200", "server"),
    ("KD", 200, "200", "server"),
    ("PD", 200, "200", "server"),
    ("SD--", 200, "200", "server"),
]


@pytest.mark.parametrize(("state", "status", "code", "cut_by"), STATES)
def test_haproxys_states(state: str, status: int, code: str, cut_by: str | None) -> None:
    one = tiny(line(termination=state, status=status))
    assert one.codes == {("alice", code): 1}
    assert one.incomplete == {"client": 0, "server": 0} | ({cut_by: 1} if cut_by else {})


def test_no_status_at_all_is_000() -> None:
    assert tiny(line(status=-1, termination="RC")).codes == {("alice", "000"): 1}


def test_a_model_and_a_key_that_nobody_knows_have_no_name() -> None:
    shown = taken(
        line(model="x" * 200), line(model=None, key="-", **REFUSED), line(key="<b>")
    ).shown()
    assert [(one.model, one.codes) for one in shown.models] == [
        ("org/tiny", {("", "200"): 1}),
        ("big", {}),
        ("", {("", "200"): 1, ("alice", "200"): 1}),
    ]


def test_names_are_bounded() -> None:
    tally = taken(
        *(line(key=f"k{number}", replica=f"h{number}:r") for number in range(MOST_REPLICAS + 10))
    )
    tally.take(line(key="k0", replica="h0:r", time=1795309300.0))
    shown = tally.shown()
    assert len(shown.models[0].codes) == MOST_KEYS + 1
    assert shown.models[0].codes["", "200"] == MOST_REPLICAS + 10 - MOST_KEYS
    assert shown.models[0].codes["k0", "200"] == 2
    assert len(shown.last_sent) == MOST_REPLICAS
    assert shown.last_sent["h0:r"] == pytest.approx(1795309300.141)


def test_the_last_request_of_a_replica_is_the_last_that_was_sent_not_the_last_that_ended() -> None:
    tally = taken(
        line(),
        line(time=1795309200.0, total_ms=60_000),
        line(replica="gpu02:tiny", connect_ms=-1, time=1795309400.0),
        line(replica="<NOSRV>"),
    )
    assert tally.shown().last_sent == {"gpu01:tiny": pytest.approx(1795309262.245)}


GARBAGE = [
    b"", b"{", b"{}", b"[]", b"null", b"<134>1 - - - {}", line()[:-9], line(status="200"),
    line(status=2000), line(time=-1), line(time=None), line(total_ms=-2), line(total_ms=1e12),
    line(total_ms=1.5), line(termination="-"), line(termination=None), line(retries="++1"),
    line(retries="1" * 9), line(prompt_tokens=10**13), line(prompt_tokens="1"), line(key=1),
    line().replace(b"alice", b"\xff"), b"[" * 8000,
]  # fmt: skip


@pytest.mark.parametrize("message", GARBAGE)
def test_garbage_is_counted_as_such(message: bytes) -> None:
    tally = taken(message, line())
    assert tally.lines == {"counted": 1, "refused": 0, "garbled": 1}
    with pytest.raises(LineError):
        parse(message)


_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80)
_fields = st.dictionaries(st.sampled_from(sorted(json.loads(line()))), _values)


@given(st.binary() | _fields.map(lambda fields: line(**fields)))
@example(line(termination="SD" * 2, retries=True))
def test_nothing_that_is_sent_raises(message: bytes) -> None:
    tally = taken(message)
    assert tally.lines["counted"] + tally.lines["garbled"] == 1
    assert sum(sum(one.codes.values()) for one in tally.shown().models) == tally.lines["counted"]


@given(st.lists(st.integers(0, 2_000_000), max_size=30))
def test_buckets_are_cumulative_and_end_at_their_count(times: list[int]) -> None:
    one = tiny(*(line(total_ms=each, first_byte_ms=each) for each in times))
    for histogram, bounds in ((one.seconds, SECONDS_BOUNDS), (one.first_byte, FIRST_BYTE_BOUNDS)):
        assert histogram.cumulative[-1] == len(times)
        assert list(histogram.cumulative) == sorted(histogram.cumulative)
        assert histogram.bounds == bounds


def test_a_model_that_stays_keeps_its_counts() -> None:
    tally = taken(line(), line(model="new"))
    tally.serve(("new", "org/tiny"))
    tally.take(line(model="big"))
    assert [(one.model, one.codes) for one in tally.shown().models] == [
        ("new", {}),
        ("org/tiny", {("alice", "200"): 1}),
        ("", {("alice", "200"): 2}),
    ]
