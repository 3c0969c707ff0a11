"""What a client gets for one request, byte by byte; pure but for the clock.

Every event of a stream is parsed: a half one, one that is no JSON, or one with another engine's
error in it is seen, not assumed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import msgspec

__all__ = ["Answer"]

MOST_KEPT = 1 << 20
"""Bytes that are kept of an answer in one piece: more is no answer to a short question."""


class _Words(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    finish_reason: str | None = None
    delta: _Words | None = None
    message: _Words | None = None
    text: str | None = None

    def said(self) -> bool:
        words = self.delta or self.message
        return bool(
            self.text or (words and (words.content or words.reasoning_content or words.reasoning))
        )


class _Usage(msgspec.Struct):
    completion_tokens: int | None = None


class _Said(msgspec.Struct):
    model: str | None = None
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_said = msgspec.json.Decoder(_Said)


class Answer:
    """One answer. A connection feeds it: :meth:`began`, :meth:`head`, :meth:`data`, :meth:`end`.

    ``status`` is 0 until the head is there. ``whole`` says that HTTP's own end of the answer came
    (last chunk, Content-Length, END_STREAM); ``broken`` why it did not. Times are time.monotonic().
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.whole = False
        self.broken = ""
        self.first_byte: float | None = None
        self.first_token: float | None = None
        self.last_byte = time.monotonic()
        self.received = 0
        self.body = bytearray()
        """Of an answer that is no stream of events, at most a mebibyte."""
        self.events = 0
        self.tokens: int | None = None
        """As the engine counts them, None where it does not say."""
        self.said = 0
        """Events, or answers, with words in them."""
        self.models: set[str] = set()
        self.finish: str | None = None
        self.error = ""
        self.done = False
        self.garbage = ""
        self._line = b""
        self.streams = False
        """It is a stream of events, by its Content-Type."""

    def began(self) -> None:
        """A byte of it is there."""
        self.last_byte = time.monotonic()
        self.first_byte = self.first_byte or self.last_byte

    def head(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Its status and headers are there."""
        self.status = status
        self.headers = {name.lower(): value.strip() for name, value in headers}
        self.streams = self.headers.get("content-type", "").startswith("text/event-stream")

    def data(self, data: bytes) -> None:
        """More of its body is there."""
        self.received += len(data)
        if not self.streams:
            if len(self.body) < MOST_KEPT:
                self.body += data
            return
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._read(line.rstrip(b"\r"))

    def end(self, broken: str = "") -> None:
        """Nothing more comes: it is whole, or *broken* says why not."""
        self.whole, self.broken = not broken, broken
        if self.streams:
            if self._line.strip():
                self.garbage = self.garbage or f"half a line at its end: {self._line[:80]!r}"
        elif self.status == 200 and self.whole:
            self._note(bytes(self.body))
            if self.models or self.finish:
                self.first_token = self.first_byte

    def _read(self, line: bytes) -> None:
        """One line of a stream of events."""
        if not line or line.startswith(b":"):
            return
        if not line.startswith(b"data:"):
            if not line.startswith((b"event:", b"id:", b"retry:")):
                self.garbage = self.garbage or f"no event: {line[:80]!r}"
            return
        data = line[5:].strip()
        if self.done:
            self.garbage = self.garbage or "an event after [DONE]"
        elif data == b"[DONE]":
            self.done = True
        else:
            self.events += 1
            self._note(data)

    def _note(self, data: bytes) -> None:
        try:
            said = _said.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.garbage = self.garbage or f"no completion: {data[:80]!r}"
            return
        if said.error is not None:
            self.error = self.error or json.dumps(said.error)[:200]
        if said.model:
            self.models.add(said.model)
        for choice in said.choices:
            self.finish = choice.finish_reason or self.finish
            if choice.said():
                self.said += 1
                self.first_token = self.first_token or time.monotonic()
        if said.usage and said.usage.completion_tokens is not None:
            self.tokens = said.usage.completion_tokens
