"""What became of a request, by the answer to it; pure.

The outcomes:

- ``complete``: whole, and what was asked for;
- ``refused``: 401, 403, 404, 413, 429 or 503 in OpenAI's error shape, with ``Retry-After`` where a
  client should come again (429, 503);
- ``incomplete``: it began and broke off (no ``[DONE]``, no last chunk, short of its
  Content-Length, an error in the stream), or a proxy says that it did (502, 504);
- ``aborted``: an end with ``finish_reason: abort``, HTTP 200 or not;
- ``dropped``: no byte of an answer on a connection that was there;
- ``wrong``: whole, and not what was asked for: another model, another number of tokens, no
  completion, another status, a refusal that says neither why nor when;
- ``unreached``: no connection, so nobody got the request;
- ``vanished``: its client went away, as planned, and all was well until then.

Lost are ``incomplete``, ``aborted``, ``dropped`` and ``wrong``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from farrier.load.answer import Answer

__all__ = ["LOST", "OUTCOMES", "Asked", "Outcome", "judge"]

Outcome = Literal[
    "complete",
    "refused",
    "incomplete",
    "aborted",
    "dropped",
    "wrong",
    "unreached",
    "vanished",
]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
LOST: frozenset[Outcome] = frozenset(("incomplete", "aborted", "dropped", "wrong"))

REFUSALS = frozenset((401, 403, 404, 413, 429, 503))
COME_AGAIN = frozenset((429, 503))
BROKE_BEHIND = frozenset((502, 504))


@dataclass(frozen=True)
class Asked:
    """What the request asked for. *exact*: as many tokens, not only at most so many."""

    model: str
    tokens: int
    stream: bool
    exact: bool


def judge(asked: Asked, answer: Answer) -> tuple[Outcome, str]:
    """The outcome, and in words what is to be said of it."""
    if not answer.status:
        return _without_head(answer)
    if answer.status != 200:
        return _not_ok(answer)
    if answer.finish == "abort":
        return "aborted", "finish_reason abort"
    if incomplete := _incomplete(asked, answer):
        return "incomplete", incomplete
    wrong = next(_wrong(asked, answer), "")
    return ("wrong", wrong) if wrong else ("complete", "")


def _without_head(answer: Answer) -> tuple[Outcome, str]:
    if answer.garbage:
        return "wrong", answer.garbage
    if answer.first_byte is None:
        return "dropped", answer.broken
    return "incomplete", f"in the answer's head: {answer.broken}"


def _not_ok(answer: Answer) -> tuple[Outcome, str]:
    if answer.broken or answer.status in BROKE_BEHIND:
        return "incomplete", f"status {answer.status}: {answer.broken or _short(answer)}"
    if answer.status not in REFUSALS:
        return "wrong", f"status {answer.status}: {_short(answer)}"
    message = _message(answer)
    if message is None:
        return "wrong", f"status {answer.status}, not in OpenAI's shape: {_short(answer)}"
    if answer.status in COME_AGAIN and not answer.headers.get("retry-after", "").isdigit():
        return "wrong", f"status {answer.status} without Retry-After in seconds: {message}"
    return "refused", message


def _incomplete(asked: Asked, answer: Answer) -> str:
    """What is missing of an answer that began well; nothing when it is whole."""
    if answer.broken:
        return f"{answer.broken} after {answer.received} bytes of its body"
    if answer.error:
        return f"an error in it: {answer.error}"
    # HAProxy 2.6 ends a stream that broke off behind it with END_STREAM: whole, as HTTP/2 goes
    if asked.stream and answer.streams and not answer.done:
        return "no [DONE] at its end"
    return ""


def _wrong(asked: Asked, answer: Answer) -> Iterator[str]:
    """Why a whole answer is not what was asked for; the first reason says enough."""
    if answer.garbage:
        yield answer.garbage
    if asked.stream and not answer.events:
        yield f"no event: {_short(answer)}"
    if answer.models != {asked.model}:
        yield f"model {', '.join(sorted(answer.models)) or 'not named'}, not {asked.model}"
    if answer.finish is None:
        yield "no finish_reason"
    came = answer.said if answer.tokens is None else answer.tokens
    if came > asked.tokens:
        yield f"{came} tokens, not at most {asked.tokens}"
    if asked.exact and answer.finish != "length":
        yield f"finish_reason {answer.finish}, not length"
    # without usage nobody knows: an event may hold several tokens, or none that can be read
    if asked.exact and answer.tokens not in {asked.tokens, None}:
        yield f"{answer.tokens} tokens, not {asked.tokens}"
    if asked.exact and answer.tokens is None and not asked.stream:
        yield "no number of tokens"


def _message(answer: Answer) -> str | None:
    """What an error of OpenAI's shape says, None where it is none."""
    try:
        value = json.loads(answer.body)
    except ValueError:
        return None
    error = value.get("error") if isinstance(value, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message[:200] if isinstance(message, str) and message else None


def _short(answer: Answer) -> str:
    return repr(bytes(answer.body[:120]))
