"""Every manner in which an answer can end is the outcome that it is.

Each test is one request of the real client to a server that answers with bytes of the test's
choosing. What rests on these: a rollout's "lost 0".
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from farrier.load import Endpoint, Ledger, Outcome, Plan, Request, run
from tests.fakes.rude import Answer, Rude

NOBODY: dict[str, Any] = {
    "streams": 0,
    "posts": 0,
    "uploads": 0,
    "fresh": 0.0,
    "models": ("tiny",),
    "ramp": 0.0,
}
TOKENS = 4


def plan(kind: str, requests: int = 1, **more: Any) -> Plan:
    """One client of *kind* that asks so often."""
    clients = {"stream": "streams", "post": "posts", "upload": "uploads"}.get(kind, kind)
    values: dict[str, Any] = {
        clients: 1,
        "requests": requests,
        "seconds": 20.0,
        "post_tokens": TOKENS,
    }
    # so that a stream has four tokens as well
    values |= {"seconds_per_token": 1.0, "stream_seconds": (4.0, 4.0), "upload_seconds": 0.3}
    values |= {"patience": 20.0, "after_refusal": 0.01, "pause": 0.01, "upload_bytes": 20_000}
    return Plan(**(NOBODY | values | more))


def ask(port: int, what: Plan, *, scheme: str = "http", ca: Path | None = None) -> Ledger:
    endpoint = Endpoint(f"{scheme}://127.0.0.1:{port}", {"alice": "secret-key"}, ca)
    return asyncio.run(run(what, endpoint))


def asked(kind: str, *answers: Answer, requests: int = 1, **more: Any) -> list[Request]:
    """What became of so many requests of one client, to a server with these answers."""
    with Rude(*answers) as server:
        return ask(server.port, plan(kind, requests, **more)).requests


# -- bytes ---------------------------------------------------------------------------------------


def event(**value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def words(count: int = TOKENS, finish: str = "length", model: str = "tiny") -> list[bytes]:
    """The events of a stream."""
    ends = [None] * (count - 1) + [finish]
    return [
        event(
            model=model,
            choices=[{"index": 0, "delta": {"content": "word "}, "finish_reason": end}],
        )
        for end in ends
    ]


DONE = b"data: [DONE]\n\n"
USAGE = event(model="tiny", choices=[], usage={"completion_tokens": TOKENS})
GOOD = [*words(), USAGE, DONE]
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(*parts: bytes) -> bytes:
    return STREAM + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


def whole(*parts: bytes) -> bytes:
    return chunked(*parts, b"")


def completion(
    model: str = "tiny", tokens: int | None = TOKENS, finish: str | None = "length"
) -> bytes:
    value: dict[str, Any] = {
        "model": model,
        "choices": [{"message": {"content": "words"}, "finish_reason": finish}],
    }
    return json.dumps(value | ({"usage": {"completion_tokens": tokens}} if tokens else {})).encode()


def sized(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", *headers]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def error(status: str, *headers: str) -> bytes:
    return sized(b'{"error": {"message": "why", "type": "x"}}', *headers, status=status)


AGAIN = "Retry-After: 5"
RESET, HELD = Answer(then="reset"), Answer(then="hold")

ANSWERS: dict[str, tuple[str, Answer, Outcome, str]] = {
    # a stream, whole
    "stream": ("stream", Answer(whole(*GOOD)), "complete", ""),
    "stream in one piece": ("stream", Answer(whole(b"".join(GOOD))), "complete", ""),
    "events cut anywhere": (
        "stream",
        Answer(whole(b"".join(GOOD)[:77], b"".join(GOOD)[77:-9], b"".join(GOOD)[-9:])),
        "complete",
        "",
    ),
    "stream without usage": ("stream", Answer(whole(*words(), DONE)), "complete", ""),
    "stream with comments": ("stream", Answer(whole(b": ping\n\n", *GOOD)), "complete", ""),
    "stream with CRLF": (
        "stream",
        Answer(whole(*(one.replace(b"\n", b"\r\n") for one in GOOD))),
        "complete",
        "",
    ),
    "stream that ends with its connection": (
        "stream",
        Answer(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + b"".join(GOOD),
        ),
        "complete",
        "",
    ),
    "early hints": (
        "stream",
        Answer(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + whole(*GOOD)),
        "complete",
        "",
    ),
    # a stream, broken
    "no last chunk": ("stream", Answer(chunked(*GOOD)), "incomplete", "closed"),
    "half a last chunk": ("stream", Answer(whole(*GOOD)[:-2]), "incomplete", "closed"),
    "no DONE": ("stream", Answer(whole(*words())), "incomplete", "[DONE]"),
    "in a chunk": ("stream", Answer(chunked(*GOOD)[:300]), "incomplete", "closed"),
    "after its head": ("stream", Answer(STREAM), "incomplete", "closed"),
    "in its head": ("stream", Answer(STREAM[:30]), "incomplete", "head"),
    "reset in the middle": (
        "stream",
        Answer(chunked(*words()[:2]), then="reset", pause=0.1),
        "incomplete",
        "reset",
    ),
    "connection's end, no DONE": (
        "stream",
        Answer(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + words()[0]),
        "incomplete",
        "[DONE]",
    ),
    "an error in it": (
        "stream",
        Answer(whole(words()[0], event(error={"message": "engine died"}), DONE)),
        "incomplete",
        "engine died",
    ),
    "silence": (
        "stream",
        Answer(chunked(words()[0]), then="hold"),
        "incomplete",
        "nothing came for 1 s",
    ),
    # a stream, whole and wrong
    "abort": ("stream", Answer(whole(*words(finish="abort"), DONE)), "aborted", "abort"),
    "abort, then cut": ("stream", Answer(chunked(*words(finish="abort"))), "aborted", "abort"),
    "too few": (
        "stream",
        Answer(whole(*words(3), event(choices=[], usage={"completion_tokens": 3}), DONE)),
        "wrong",
        "3 tokens, not 4",
    ),
    "too many": ("stream", Answer(whole(*words(5), DONE)), "wrong", "5 tokens"),
    "another end": (
        "stream",
        Answer(whole(*words(finish="stop"), USAGE, DONE)),
        "wrong",
        "finish_reason stop",
    ),
    "another model": ("stream", Answer(whole(*words(model="big"), DONE)), "wrong", "model big"),
    "two models": (
        "stream",
        Answer(whole(*words(model="big")[:2], *words()[2:], DONE)),
        "wrong",
        "model big, tiny",
    ),
    "nothing but DONE": ("stream", Answer(whole(DONE)), "wrong", "no event"),
    "nothing": ("stream", Answer(whole()), "incomplete", "[DONE]"),
    "no JSON": ("stream", Answer(whole(b"data: {]\n\n", DONE)), "wrong", "no completion"),
    "no events": ("stream", Answer(whole(b"<html>\n", DONE)), "wrong", "no event"),
    "more after DONE": ("stream", Answer(whole(*GOOD, words()[0])), "wrong", "after [DONE]"),
    "JSON for a stream": ("stream", Answer(sized(completion())), "wrong", "no event"),
    # an answer in one piece
    "post": ("post", Answer(sized(completion())), "complete", ""),
    "upload": ("upload", Answer(sized(completion(tokens=8))), "complete", ""),
    "short": ("post", Answer(sized(completion(), length=999)), "incomplete", "closed"),
    "post with abort": ("post", Answer(sized(completion(finish="abort"))), "aborted", "abort"),
    "post too short": ("post", Answer(sized(completion(tokens=3))), "wrong", "3 tokens"),
    "post of another model": ("post", Answer(sized(completion("big"))), "wrong", "model big"),
    "post without usage": ("post", Answer(sized(completion(tokens=None))), "wrong", "number"),
    "post without an end": ("post", Answer(sized(completion(finish=None))), "wrong", "finish"),
    "empty object": ("post", Answer(sized(b"{}")), "wrong", "model not named"),
    "empty": ("post", Answer(sized(b"")), "wrong", "no completion"),
    "garbage": ("post", Answer(sized(b"\x00\xff<html>")), "wrong", "no completion"),
    "no HTTP": ("post", Answer(b"SSH-2.0-OpenSSH_9.2\r\n"), "wrong", "not HTTP"),
    # no answer
    "closed": ("post", Answer(), "dropped", "closed before a byte"),
    "stream closed": ("stream", Answer(), "dropped", "closed before a byte"),
    "upload closed": ("upload", Answer(early=True), "dropped", "before a byte"),
    "reset": ("post", RESET, "dropped", "reset"),
    "silent": ("post", HELD, "dropped", "nothing came for 1 s"),
    # refusals, and what is none
    "401": ("post", Answer(error("401 Unauthorized")), "refused", "why"),
    "403": ("post", Answer(error("403 Forbidden")), "refused", "why"),
    "404": ("stream", Answer(error("404 Not Found")), "refused", "why"),
    "413": ("upload", Answer(error("413 Too Large"), early=True), "refused", "why"),
    "429": ("post", Answer(error("429 Too Many", AGAIN)), "refused", "why"),
    "503": ("stream", Answer(error("503 Busy", AGAIN)), "refused", "why"),
    "429 without when": ("post", Answer(error("429 Too Many")), "wrong", "Retry-After"),
    "503 without when": ("post", Answer(error("503 Busy")), "wrong", "Retry-After"),
    "503 some time": (
        "post",
        Answer(error("503 Busy", "Retry-After: soon")),
        "wrong",
        "in seconds",
    ),
    "503 in HTML": (
        "post",
        Answer(sized(b"<html>", AGAIN, status="503 Busy")),
        "wrong",
        "not in OpenAI's shape",
    ),
    "half a 503": (
        "post",
        Answer(sized(b"{", AGAIN, status="503 Busy", length=9)),
        "incomplete",
        "closed",
    ),
    "400": ("post", Answer(error("400 Bad Request")), "wrong", "400"),
    "408": ("post", Answer(error("408 Timeout")), "wrong", "408"),
    "425": ("post", Answer(error("425 Too Early", AGAIN)), "wrong", "425"),
    "500": ("post", Answer(error("500 Oops", AGAIN)), "wrong", "500"),
    "502": ("post", Answer(error("502 Bad Gateway")), "incomplete", "502"),
    "504": ("stream", Answer(error("504 Gateway Time-out")), "incomplete", "504"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_what_it_is(name: str) -> None:
    kind, answer, outcome, detail = ANSWERS[name]
    silence = 1.0 if answer.then == "hold" else 10.0
    (request,) = asked(kind, answer, silence=silence)
    assert request.outcome == outcome, request
    assert detail in str(request) if detail else not request.detail, request


def test_every_outcome_is_among_them_or_below() -> None:
    from farrier.load import OUTCOMES

    here = {outcome for _, _, outcome, _ in ANSWERS.values()}
    assert set(OUTCOMES) - here == {"unreached", "vanished"}


# -- connections ---------------------------------------------------------------------------------

KEPT = Answer(sized(completion()), then="keep")


def test_a_connection_that_closes_under_a_request_drops_it_and_nothing_is_sent_again() -> None:
    with Rude(KEPT, Answer(), KEPT) as server:
        ledger = ask(server.port, plan("post", 3))
    assert [one.outcome for one in ledger.requests] == ["complete", "dropped", "complete"]
    assert [one.reused for one in ledger.requests] == [False, True, False]
    assert ledger.dropped_on_kept == ledger.lost == 1
    assert (len(server.requests), server.connections) == (3, 2)


def test_a_kept_connection_that_was_closed_before_is_not_used_again() -> None:
    # as every good client does: it looks before it sends
    with Rude(Answer(sized(completion()), then="close")) as server:
        ledger = ask(server.port, plan("post", 4, pause=0.1))
    assert ledger.outcomes == {"complete": 4}
    assert server.connections == 4


def test_connection_close_is_obeyed() -> None:
    with Rude(Answer(sized(completion(), "Connection: close"), then="hold")) as server:
        ledger = ask(server.port, plan("post", 2))
    assert ledger.outcomes == {"complete": 2}
    assert server.connections == 2


def test_words_that_nobody_asked_for_answer_no_request() -> None:
    # HAProxy and others say 408 before they close an idle connection
    late = Answer(sized(completion()), then="keep", pause=0.02, later=error("408 Timeout"))
    with Rude(late, KEPT) as server:
        ledger = ask(server.port, plan("post", 2, pause=0.4, seed=1))
    assert ledger.outcomes == {"complete": 2}
    assert server.connections == 2


def test_a_second_answer_to_one_request_is_nobodys() -> None:
    with Rude(Answer(sized(completion()) + error("500 Oops"), then="keep"), KEPT) as server:
        ledger = ask(server.port, plan("post", 2))
    assert ledger.outcomes == {"complete": 2}
    assert server.connections == 2


def test_kept_or_not_is_the_plans() -> None:
    for keep, connections in ((True, 1), (False, 3)):
        with Rude(KEPT) as server:
            assert ask(server.port, plan("post", 3, keep_alive=keep)).lost == 0
        assert server.connections == connections


def test_fresh_requests_have_connections_of_their_own() -> None:
    with Rude(KEPT) as server:
        ledger = ask(server.port, Plan(**(NOBODY | {"fresh": 50.0, "requests": 5, "seconds": 9.0})))
    assert ledger.counts == {("fresh", "complete"): 5}
    assert server.connections == 5


def test_nobody_listens() -> None:
    with Rude(KEPT) as server:
        pass
    ledger = ask(server.port, plan("post", 2))
    assert ledger.outcomes == {"unreached": 2}
    assert ledger.lost == 0
    assert len({one.name for one in ledger.requests}) == 2


def test_no_tls_is_no_connection() -> None:
    with Rude(Answer(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        ledger = ask(server.port, plan("post", connect_seconds=2.0), scheme="https")
    assert ledger.outcomes == {"unreached": 1}


def test_a_client_that_vanishes_is_not_lost() -> None:
    with Rude(Answer(chunked(*words(3)), then="hold")) as server:
        ledger = ask(server.port, plan("vanish"))
    assert ledger.outcomes == {"vanished": 1}
    assert ledger.lost == 0


def test_what_breaks_before_its_client_vanishes_is_lost() -> None:
    (request,) = asked("vanish", Answer(chunked(*words(3)[:1])))
    assert request.outcome == "incomplete"


def test_a_slow_reader_makes_its_server_wait() -> None:
    long = [event(model="tiny", choices=[{"delta": {"content": "x" * 2000}}])] * 3
    data = whole(*long, words(1)[0], USAGE, DONE)
    (slow,) = asked("slow", Answer(data), slow_bytes=5000, silence=1.0)
    assert slow.outcome == "complete", slow
    assert slow.ended - slow.began > len(data) / 5000 * 0.8


def test_what_runs_beyond_the_patience_is_incomplete() -> None:
    (request,) = asked("stream", Answer(chunked(*words(2)), then="hold"), seconds=0.3, patience=0.3)
    assert request.outcome == "incomplete"
    assert "not over 0.3 s after" in request.detail


def test_a_request_tells_its_name_and_its_key_goes_where_keys_go() -> None:
    with Rude(Answer(sized(completion(tokens=8)), then="keep")) as server:
        ledger = ask(server.port, plan("upload", 2))
    for request, sent in zip(ledger.requests, server.requests, strict=True):
        head, _, body = sent.partition(b"\r\n\r\n")
        assert f"X-Request-ID: {request.name}".encode() in head
        assert b"Authorization: Bearer secret-key" in head
        assert f'"user": "{request.name}"'.encode() in body
        assert request.key == "alice"
    assert "secret" not in json.dumps(ledger.to_json())
    # every other one is chunked, and both are as long as they should be
    first, second = server.requests
    assert b"Content-Length: 20000" in first
    assert b"Transfer-Encoding: chunked" in second
