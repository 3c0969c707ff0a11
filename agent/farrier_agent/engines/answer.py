"""What an engine is asked, what it answered, and how adapters judge that. No I/O here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

__all__ = [
    "Answer",
    "Engine",
    "Load",
    "Question",
    "Step",
    "as_count",
    "missing_model",
    "parsed",
    "refusal",
]

T = TypeVar("T")

NAMES_SHOWN = 5


@dataclass(frozen=True)
class Answer:
    """The answer to one question: a status and a body, or an ``error`` in words instead of both."""

    status: int = 0
    body: bytes = b""
    error: str | None = None


@dataclass(frozen=True)
class Question:
    """One HTTP request: a GET without a *body*, else a POST of it, unless *verb* says otherwise."""

    path: str
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    verb: str | None = None

    @property
    def method(self) -> str:
        """The request's method."""
        return self.verb or ("GET" if self.body is None else "POST")


@dataclass(frozen=True)
class Load:
    """What an engine says of its own work.

    ``running`` and ``waiting`` are requests; ``progress`` is a number that changes whenever the
    engine gets anything done. None stands for what it does not tell.
    """

    running: int | None = None
    waiting: int | None = None
    progress: float | None = None

    @property
    def requests(self) -> int | None:
        """Running and waiting requests together."""
        if self.running is None or self.waiting is None:
            return None
        return self.running + self.waiting


@dataclass(frozen=True)
class Step:
    """One step of warming an engine up.

    ``questions(model)`` are put in their order until one gets another status than those that mean
    that the engine does not have it; ``judge(model, path, answer)`` says why its answer is not
    good, or None. ``generates``: the answer costs the engine a generation.
    """

    title: str
    questions: Callable[[str], tuple[Question, ...]]
    judge: Callable[[str, str, Answer], str | None]
    generates: bool = False


@dataclass(frozen=True)
class Engine:
    """An adapter: the paths to ask an engine for, and the judge of what came back.

    ``judge(model, answers)`` returns None when the engine serves *model*, else why it does not.
    ``steps`` warm it up. ``load(body)`` reads what it answers on ``metrics``; both are None where
    an engine tells nothing of its work.

    ``known`` is the version that its file here was written after. ``sigterm`` says in words what
    SIGTERM does to requests that run, and ``counted`` what tells how many those are, besides the
    sockets that nginx holds towards it; ``progress`` names what moves with its work, "" where
    nothing does that can be trusted. docs/engines.md shows them.
    """

    name: str
    paths: tuple[str, ...]
    judge: Callable[[str, Mapping[str, Answer]], str | None]
    steps: tuple[Step, ...]
    metrics: str | None = None
    load: Callable[[bytes], Load] | None = None
    known: str = ""
    sigterm: str = "not known"
    counted: str = "nothing of its own"
    progress: str = ""


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
    models = parsed(answer.body, _Models)
    if models is None:
        return f"{path} is no list of models"
    names = [card.id for card in models.data]
    if model in names:
        return None
    shown = ", ".join(repr(name[:80]) for name in names[:NAMES_SHOWN]) or "none"
    return f"{path} does not name {model!r} (it names {shown})"


def as_count(value: float | None) -> int | None:
    """A number of requests as an engine's gauge has it; None for what can be none."""
    return int(value) if value is not None and value >= 0 else None


def parsed(body: bytes, kind: type[T]) -> T | None:
    """*body*, JSON, as a *kind*; None when it is not one, whatever it is instead."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
