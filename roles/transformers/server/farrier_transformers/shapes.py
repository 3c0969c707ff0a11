"""OpenAI's answers. Pure but for the clock and the identifiers that are handed in."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from farrier_transformers.jobs import Ended, Vector

__all__ = ["Shape", "embeddings", "models"]


@dataclass(frozen=True)
class Shape:
    """How the answer to one request looks. ``chat`` or plain text; ``counts``: its stream ends
    with the usage.
    """

    id: str
    model: str
    created: int
    chat: bool
    counts: bool = False

    def whole(self, text: str, ended: Ended) -> dict[str, Any]:
        """The answer in one piece."""
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        kind = "chat.completion" if self.chat else "text_completion"
        return self._head(kind) | {
            "choices": [_choice(ended.reason) | said],
            "usage": usage(ended),
        }

    def first(self) -> list[dict[str, Any]]:
        """The events before the first text: a chat's names who speaks."""
        return [self._event({"role": "assistant", "content": ""})] if self.chat else []

    def piece(self, text: str) -> dict[str, Any]:
        """The event with *text*."""
        return self._event({"content": text} if self.chat else {"text": text})

    def last(self, ended: Ended) -> list[dict[str, Any]]:
        """The events after the last text."""
        events = [self._event({} if self.chat else {"text": ""}, ended.reason)]
        if self.counts:
            events.append(events[0] | {"choices": [], "usage": usage(ended)})
        return events

    def _event(self, said: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = _choice(reason) | ({"delta": said} if self.chat else said)
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        none = {"usage": None} if self.counts else {}
        return self._head(kind) | {"choices": [choice]} | none

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def _choice(reason: str | None) -> dict[str, Any]:
    return {"index": 0, "logprobs": None, "finish_reason": reason}


def usage(ended: Ended) -> dict[str, int]:
    """The tokens of a request."""
    return {
        "prompt_tokens": ended.prompt_tokens,
        "completion_tokens": ended.answer_tokens,
        "total_tokens": ended.prompt_tokens + ended.answer_tokens,
    }


def embeddings(model: str, vectors: Sequence[Vector], encoding: str) -> dict[str, Any]:
    """The answer of ``/v1/embeddings``; *encoding* ``base64``: little-endian 32-bit floats."""
    tokens = sum(vector.tokens for vector in vectors)
    data = [
        {
            "object": "embedding",
            "index": number,
            "embedding": vector.values if encoding == "float" else _base64(vector.values),
        }
        for number, vector in enumerate(vectors)
    ]
    spent = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": spent}


def _base64(values: list[float]) -> str:
    raw = array("f", values)
    if sys.byteorder == "big":
        raw.byteswap()
    return base64.b64encode(raw.tobytes()).decode()


def models(name: str, created: int, context: int | None) -> dict[str, Any]:
    """The answer of ``/v1/models``."""
    one = {"id": name, "object": "model", "created": created, "owned_by": "farrier"}
    return {"object": "list", "data": [one | {"max_model_len": context}]}
