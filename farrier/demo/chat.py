"""A streamed chat completion, token by token, as any OpenAI client would ask for it."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterable, Iterator
from http.client import HTTPException

import msgspec

from farrier.demo.web import AnswerError, open_url

__all__ = ["Chat", "curl", "events", "words"]


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta


class _Usage(msgspec.Struct):
    completion_tokens: int


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: object = None


_decoder = msgspec.json.Decoder(_Chunk)


def events(lines: Iterable[bytes]) -> Iterator[str]:
    """The data of each server-sent event in *lines*, as soon as its line is there."""
    for line in lines:
        if line.startswith(b"data:"):
            yield line[5:].decode(errors="replace").strip()


def words(data: str) -> str:
    """The text that one event carries; empty for the first, which names the role only.

    Raises :class:`AnswerError` for an event that is none of a chat completion.
    """
    return _words(_chunk(data))


def _words(chunk: _Chunk) -> str:
    return "".join(choice.delta.content or "" for choice in chunk.choices)


def _chunk(data: str) -> _Chunk:
    try:
        chunk = _decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise AnswerError(f"not an event of a chat completion ({error}): {data[:200]}") from error
    if chunk.error:
        raise AnswerError(f"the engine ended the stream with an error: {data[:500]}")
    return chunk


class Chat:
    """One streamed answer. Iterate it once; afterwards the measurements are there.

    ``first`` and ``seconds`` are the times to the first token and to the end of the stream, from
    the request on; ``tokens`` is the engine's own count, None where it does not tell. ``pieces``
    counts the events with text: an engine that is busy puts several tokens into one.
    """

    def __init__(self, base: str, key: str, model: str, prompt: str, max_tokens: int = 32) -> None:
        self.url = f"{base}/v1/chat/completions"
        self.text = ""
        self.tokens: int | None = None
        self.pieces = 0
        self.first: float | None = None
        self.seconds = 0.0
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._body = request_body(model, prompt, max_tokens, count=True)

    def __iter__(self) -> Iterator[str]:
        """Yield the text as it arrives. Raises :class:`AnswerError`, also without ``[DONE]``."""
        began = time.monotonic()
        with open_url(self.url, self._body.encode(), self._headers, timeout=120) as answer:
            try:
                for data in events(answer):
                    self.seconds = time.monotonic() - began
                    if data == "[DONE]":
                        return
                    chunk = _chunk(data)
                    if chunk.usage:
                        self.tokens = chunk.usage.completion_tokens
                    if text := _words(chunk):
                        self.first = self.first or self.seconds
                        self.pieces += 1
                        self.text += text
                        yield text
            except (OSError, HTTPException) as error:
                raise AnswerError(f"{self.url}: the stream broke off: {error!r}") from error
        raise AnswerError(f"{self.url}: the stream ended without [DONE]")


def request_body(model: str, prompt: str, max_tokens: int, *, count: bool = False) -> str:
    """The JSON of a streamed request; with *count* the last event says how many tokens it was."""
    body = {
        "model": model,
        "stream": True,
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": prompt}],
    }
    return json.dumps(body | ({"stream_options": {"include_usage": True}} if count else {}))


def curl(base: str, key: str, model: str, prompt: str) -> str:
    """The same request as one shell command to copy."""
    return (
        f"curl -sSN --noproxy '*' {base}/v1/chat/completions"
        f" -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
        f" -d {shlex.quote(request_body(model, prompt, 32))}"
    )
