"""OpenAI's generations: how one is asked for, and whether what came back is one. No I/O here.

A status of 200 is not enough: vLLM answers 200 with ``finish_reason: abort`` while its core shuts
down, and a stream whose engine died is a 200 without ``data: [DONE]``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from farrier_agent.engines.answer import Answer, Question, Step, missing_model, parsed, refusal

__all__ = ["GENERATIONS", "LOGPROBS", "MODELS", "answers_200", "models_named", "or_embedding"]

MODELS = "/v1/models"
_CHAT, _TEXT, _VECTOR = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
_WORDS = "Say hello."
_TOKENS = 8
_UNGOOD = frozenset({"abort", "error"})
_SHOWN = 200


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Generation(msgspec.Struct):
    choices: list[_Choice] = []
    error: Any = None


class _Vector(msgspec.Struct):
    embedding: list[float]


class _Vectors(msgspec.Struct):
    data: list[_Vector]


_JSON = (("Content-Type", "application/json"),)


def _questions(model: str, *, stream: bool = False, logprobs: bool = False) -> tuple[Question, ...]:
    """Chat first, then plain text: a model without a chat template has only that."""
    common = {"model": model, "max_tokens": _TOKENS, "temperature": 0, "stream": stream}
    chat: dict[str, Any] = common | {"messages": [{"role": "user", "content": _WORDS}]}
    text: dict[str, Any] = common | {"prompt": _WORDS}
    if logprobs:
        chat |= {"logprobs": True, "top_logprobs": 1}
        text |= {"logprobs": 1}
    bodies = ((_CHAT, chat), (_TEXT, text))
    return tuple(Question(path, msgspec.json.encode(body), _JSON) for path, body in bodies)


def _short(_model: str, path: str, answer: Answer) -> str | None:
    refused = _refusal(path, answer)
    if refused:
        return refused
    generation = parsed(answer.body, _Generation)
    if generation is None:
        return f"{path} answers 200 with something that is no completion"
    return _unfinished(path, [generation])


def _stream(_model: str, path: str, answer: Answer) -> str | None:
    refused = _refusal(path, answer)
    if refused:
        return refused
    data = [line[5:].strip() for line in answer.body.splitlines() if line.startswith(b"data:")]
    if not data or data[-1] != b"[DONE]":
        return f"{path}: the stream ended after {len(data)} events without [DONE]"
    generations = []
    for number, event in enumerate(data[:-1], 1):
        generation = parsed(event, _Generation)
        if generation is None:
            return f"{path}: event {number} of the stream is no completion"
        generations.append(generation)
    return _unfinished(path, generations)


def _unfinished(path: str, generations: list[_Generation]) -> str | None:
    """Why *generations*, one answer or the events of one, do not come to a good end."""
    for one in generations:
        if one.error:
            return f"{path} answers 200 with an error: {_said(one.error)}"
    reasons = [choice.finish_reason for one in generations for choice in one.choices]
    reason = next((each for each in reversed(reasons) if each), None)
    if not reasons:
        return f"{path} answers 200 without any choice"
    if reason is None:
        return f"{path} answers 200 without a finish_reason"
    return f"{path} answers 200 with finish_reason {reason!r}" if reason in _UNGOOD else None


def _refusal(path: str, answer: Answer) -> str | None:
    refused = refusal(path, answer)
    if refused is None or answer.error is not None:
        return refused
    generation = parsed(answer.body, _Generation)
    return f"{refused}: {_said(generation.error)}" if generation and generation.error else refused


def _said(error: object) -> str:
    """An error as OpenAI's or any other shape has it: one printable line."""
    message = error.get("message", error) if isinstance(error, dict) else error
    text = "".join(char if char.isprintable() else " " for char in str(message))
    return text[:_SHOWN]


def models_named(path: str = MODELS) -> Step:
    """The step that is done when the engine's list of models names the model."""
    return Step(
        "model",
        lambda _: (Question(path),),
        lambda model, asked, answer: missing_model(asked, answer, model),
    )


def answers_200(path: str) -> Step:
    """The step that is done when *path* answers 200."""
    return Step("health", lambda _: (Question(path),), lambda _, asked, got: refusal(asked, got))


GENERATIONS = (
    Step("short generation", _questions, _short, generates=True),
    Step("stream", lambda model: _questions(model, stream=True), _stream, generates=True),
)
"""One short generation, and one that is streamed to its end."""

LOGPROBS = Step(
    "logprobs",
    lambda model: (*_questions(model, logprobs=True), *_questions(model)),
    _short,
    generates=True,
)
"""One short generation with logprobs; without, where the engine gives nobody any."""


def or_embedding(step: Step) -> Step:
    """*step*, which a model that embeds and cannot generate takes by an embedding."""

    def questions(model: str) -> tuple[Question, ...]:
        body = msgspec.json.encode({"model": model, "input": _WORDS})
        return (*step.questions(model), Question(_VECTOR, body, _JSON))

    def judge(model: str, path: str, answer: Answer) -> str | None:
        return _embedded(answer) if path == _VECTOR else step.judge(model, path, answer)

    return replace(step, questions=questions, judge=judge)


def _embedded(answer: Answer) -> str | None:
    refused = _refusal(_VECTOR, answer)
    if refused:
        return refused
    vectors = parsed(answer.body, _Vectors)
    whole = vectors is not None and vectors.data and all(one.embedding for one in vectors.data)
    return None if whole else f"{_VECTOR} answers 200 with something that is no embedding"
