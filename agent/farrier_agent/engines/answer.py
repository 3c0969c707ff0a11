"""What an engine answered to one GET, and the questions that adapters ask of it. No I/O here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

__all__ = ["Answer", "Engine", "missing_model", "refusal"]

NAMES_SHOWN = 5


@dataclass(frozen=True)
class Answer:
    """The answer to one GET: a status and a body, or an ``error`` in words instead of both."""

    status: int = 0
    body: bytes = b""
    error: str | None = None


@dataclass(frozen=True)
class Engine:
    """An adapter: the paths to ask an engine for, and the judge of what came back.

    ``judge(model, answers)`` returns None when the engine serves *model*, else why it does not.
    """

    name: str
    paths: tuple[str, ...]
    judge: Callable[[str, Mapping[str, Answer]], str | None]


class _Card(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Card]


def refusal(path: str, answer: Answer) -> str | None:
    """Why *answer* is not a 200, or None when it is one."""
    if answer.error is not None:
        return f"{path}: {answer.error}"
    return None if answer.status == 200 else f"{path} answers {answer.status}"


def missing_model(path: str, answer: Answer, model: str) -> str | None:
    """Why *answer*, OpenAI's list of models, does not name *model*; None when it does."""
    refused = refusal(path, answer)
    if refused:
        return refused
    try:
        names = [card.id for card in msgspec.json.decode(answer.body, type=_Models).data]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return f"{path} is no list of models"
    if model in names:
        return None
    shown = ", ".join(repr(name[:80]) for name in names[:NAMES_SHOWN]) or "none"
    return f"{path} does not name {model!r} (it names {shown})"
