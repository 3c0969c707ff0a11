"""What each kind of client asks for: how long a stream, which body, at what speed."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from farrier.load.answer import Answer
from farrier.load.endpoint import Endpoint, EndpointError, Key
from farrier.load.ledger import Request
from farrier.load.plan import Plan
from farrier.load.sending import Sending

__all__ = ["Pace", "first_model", "headers", "sending", "streams"]

STREAMS = frozenset(("stream", "slow", "vanish"))
BEFORE_ANYTHING = 16
"""Tokens of a stream while nobody knows how long a token takes."""
UPLOADED = 8
"""Tokens of the answer to an upload."""
WEIGHT = 0.2
"""Of the newest stream in what is known of a token's time."""


def streams(kind: str) -> bool:
    """Whether requests of *kind* ask for a stream."""
    return kind in STREAMS


@dataclass
class Pace:
    """Seconds per token: the plan's, or those of the streams before."""

    plan: Plan
    random: random.Random
    seconds_per_token: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.seconds_per_token = self.plan.seconds_per_token

    def learn(self, tokens: int, seconds: float) -> None:
        """A stream of *tokens* took *seconds* from its first to its last one."""
        if self.plan.seconds_per_token is not None or tokens < 4 or seconds <= 0:
            return
        latest = seconds / (tokens - 1)
        before = self.seconds_per_token
        self.seconds_per_token = latest if before is None else before + WEIGHT * (latest - before)

    def tokens(self, kind: str) -> int:
        """How many tokens the next request of *kind* asks for."""
        if kind == "upload":
            return UPLOADED
        if not streams(kind):
            return self.plan.post_tokens
        if self.seconds_per_token is None:
            return BEFORE_ANYTHING
        seconds = self.random.uniform(*self.plan.stream_seconds)
        return max(1, min(self.plan.most_tokens, round(seconds / self.seconds_per_token)))


def sending(
    plan: Plan, endpoint: Endpoint, request: Request, key: Key | None, serial: int
) -> Sending:
    """How *request*, the *serial*-th of its client, goes out."""
    body = _body(plan, request)
    upload = request.kind == "upload"
    return Sending(
        path=endpoint.path("chat/completions"),
        authority=endpoint.authority,
        headers=headers(key, request.name, _accepted(request.kind)),
        body=body,
        seconds=plan.upload_seconds if upload else 0.0,
        chunked=upload and serial % 2 == 1,
        slow_bytes=plan.slow_bytes if request.kind == "slow" else 0,
        leave_after=max(1, request.tokens // 2) if request.kind == "vanish" else 0,
    )


def headers(key: Key | None, name: str, accepted: str) -> tuple[tuple[str, str], ...]:
    """The headers of the request *name*, whose answer is of the *accepted* kind."""
    found = [
        ("User-Agent", "farrier-load"),
        ("Accept", accepted),
        ("Content-Type", "application/json"),
        ("X-Request-ID", name),
    ]
    if key is not None:
        found.append(("Authorization", f"Bearer {key.secret}"))
    return tuple(found)


def first_model(answer: Answer, path: str) -> str:
    """The first model of the list that *answer* is. Raises EndpointError where it is none."""
    try:
        name = json.loads(answer.body)["data"][0]["id"] if answer.status == 200 else None
    except (ValueError, LookupError, TypeError):
        name = None
    if not isinstance(name, str) or not answer.whole:
        said = answer.broken or bytes(answer.body[:120]).decode(errors="replace")
        raise EndpointError(
            f"{path} names no model (status {answer.status or 'none'}: {said}); name one: --model"
        )
    return name


def _accepted(kind: str) -> str:
    return "text/event-stream" if streams(kind) else "application/json"


def _body(plan: Plan, request: Request) -> bytes:
    value: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": "user", "content": "Tell me a story." + _words(plan.prompt_bytes)}],
        "user": request.name,
        "max_tokens": request.tokens,
        "stream": streams(request.kind),
    }
    if streams(request.kind):
        value["stream_options"] = {"include_usage": True}
    if plan.ignore_eos:
        value["ignore_eos"] = True
    body = json.dumps(value).encode()
    if request.kind == "upload":
        # blanks before a JSON value are part of it: many bytes, and no more tokens than before
        body = b" " * (plan.upload_bytes - len(body)) + body
    return body


def _words(size: int) -> str:
    return " word" * (size // 5)
