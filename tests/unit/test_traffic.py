"""The clients of tests/roles tell a whole answer from every other: what they prove rests on it."""

from __future__ import annotations

import pytest

from tests.roles.traffic import Request, Traffic, judge

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b'data: {"choices": [{"finish_reason": "length"}]}\n\n'
DONE = b"data: [DONE]\n\n"
WHOLE = b'{"choices": [{"finish_reason":"length"}]}'


def chunks(*parts: bytes) -> bytes:
    return CHUNKED + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


def sized(body: bytes, length: int | None = None) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
    return head.encode() + body


ANSWERS = [
    ("stream", chunks(LAST, DONE, b""), "whole"),
    ("stream", chunks(LAST[:40], LAST[40:] + DONE[:9], DONE[9:], b""), "whole"),
    ("stream", chunks(LAST, DONE, b"")[:-2], "cut"),
    ("stream", chunks(LAST, DONE), "cut"),
    ("stream", chunks(LAST, b""), "cut"),
    ("stream", chunks(LAST), "cut"),
    ("stream", chunks(LAST.replace(b"length", b"abort"), DONE, b""), "cut"),
    ("stream", chunks(DONE, b""), "cut"),
    ("stream", CHUNKED, "cut"),
    ("stream", CHUNKED[:20], "cut"),
    ("stream", b"", "unanswered"),
    ("post", sized(WHOLE), "whole"),
    ("post", sized(WHOLE, 99), "cut"),
    ("post", sized(WHOLE.replace(b"length", b"abort")), "cut"),
    ("post", sized(b"{}"), "cut"),
    ("post", b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "cut"),
    ("upload", b"HTTP/1.1 504 Gateway Time-out\r\n\r\n", "cut"),
    ("upload", b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\n\r\n", "refused"),
    ("upload", b"HTTP/1.1 503 Busy\r\n\r\n", "wrong"),
    ("post", b"HTTP/1.1 503 Busy\r\nRetry-After: soon\r\n\r\n", "wrong"),
    ("post", b"HTTP/1.1 500 Oops\r\nRetry-After: 5\r\n\r\n", "wrong"),
    ("post", b"HTTP/1.1 425 Too Early\r\n\r\n", "wrong"),
]


@pytest.mark.parametrize(("kind", "answer", "outcome"), ANSWERS)
def test_an_answer_is_what_it_is(kind: str, answer: bytes, outcome: str) -> None:
    request = Request(kind, "one", 0.0, status=int(answer[9:12] or 0))
    judge(request, answer)
    assert request.outcome == outcome, request


@pytest.mark.parametrize(
    ("outcome", "executed", "good"),
    [
        *(("whole", 1, True), ("whole", 0, False), ("whole", 2, False)),
        *(("refused", 0, True), ("refused", 1, False)),
        *(("unreached", 0, True), ("unreached", 1, False)),
        *(("unanswered", 0, True), ("unanswered", 1, False)),
        *(("cut", 1, False), ("cut", 0, False), ("wrong", 0, False)),
    ],
)
def test_the_engines_account_has_to_agree(outcome: str, executed: int, good: bool) -> None:
    traffic = Traffic("198.18.0.1", "key")
    traffic.requests.append(Request("post", "one", 0.0, outcome))
    assert (traffic.faults({"one": executed} if executed else {}) == []) is good
