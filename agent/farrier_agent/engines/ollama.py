"""Ollama: ``/api/version`` answers as long as it lives, whether it generates or not.

It loads a model when it is asked for it, and where the GPUs have no room or are not seen it serves
from the CPU without a word. So the first generation has to be answered, and then ``/api/ps`` has to
say that all of the model is in the GPUs' memory. Of its requests it tells nothing: no metrics
(ollama#3144), no number of those that run (ollama#2004). Only the sockets tell.

A name without a tag is that name with the tag ``latest``.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from farrier_agent.engines.answer import (
    Answer,
    Engine,
    Question,
    Step,
    missing_model,
    parsed,
    refusal,
)
from farrier_agent.engines.generation import GENERATIONS, MODELS, answers_200

__all__ = ["ENGINE", "ON_CPU"]

VERSION, LOADED = "/api/version", "/api/ps"


class _Loaded(msgspec.Struct):
    name: str
    size: int
    size_vram: int = 0


class _Ps(msgspec.Struct):
    models: list[_Loaded] | None = None


def tagged(model: str) -> str:
    """*model* with the tag that Ollama gives it."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def _named(model: str, answer: Answer) -> str | None:
    return missing_model(MODELS, answer, tagged(model))


def _judge_on_cpu(model: str, answers: Mapping[str, Answer]) -> str | None:
    return refusal(VERSION, answers[VERSION]) or _named(model, answers[MODELS])


def _judge(model: str, answers: Mapping[str, Answer]) -> str | None:
    why = _judge_on_cpu(model, answers)
    if why is not None:
        return why
    found = _found(model, answers[LOADED])
    # one that is not loaded now is loaded by its next request
    return _left_out(found) if isinstance(found, _Loaded) else found


def _found(model: str, answer: Answer) -> _Loaded | str | None:
    """*model* as it is loaded, or why that cannot be known; None where it is not loaded."""
    refused = refusal(LOADED, answer)
    if refused:
        return refused
    listed = parsed(answer.body, _Ps)
    if listed is None:
        return f"{LOADED} is no list of loaded models"
    return next((one for one in listed.models or () if one.name == tagged(model)), None)


def _left_out(one: _Loaded) -> str | None:
    """Why *one* is not as it should be on a host with GPUs."""
    if one.size_vram >= one.size:
        return None
    share = "nothing" if one.size_vram <= 0 else f"{one.size_vram >> 20} of {one.size >> 20} MiB"
    return (
        f"{share} of {one.name} is in the GPUs' memory, the rest runs on the CPU: free the GPUs, or"
        " give it more of them, a smaller quantisation or a shorter OLLAMA_CONTEXT_LENGTH"
    )


def _on_gpus(model: str, _path: str, answer: Answer) -> str | None:
    found = _found(model, answer)
    if found is None:
        return f"{LOADED} does not name {tagged(model)!r}, which has just answered"
    return _left_out(found) if isinstance(found, _Loaded) else found


_NAMED = Step(
    "model", lambda _: (Question(MODELS),), lambda model, _, answer: _named(model, answer)
)
_STEPS = (answers_200(VERSION), _NAMED, *GENERATIONS)
_ON_GPUS = Step("on its GPUs", lambda _: (Question(LOADED),), _on_gpus)
_KNOWN = "0.33.0-rc2"
_SIGTERM = "cuts them"
_COUNTED = "nothing of its own: no metrics, no number on `/api/ps`"

ENGINE = Engine(
    "ollama",
    (VERSION, MODELS, LOADED),
    _judge,
    (*_STEPS, _ON_GPUS),
    known=_KNOWN,
    sigterm=_SIGTERM,
    counted=_COUNTED,
)
"""On a host with GPUs, where serving from the CPU is an accident."""

ON_CPU = Engine(
    "ollama-on-cpu",
    (VERSION, MODELS),
    _judge_on_cpu,
    _STEPS,
    known=_KNOWN,
    sigterm=_SIGTERM,
    counted=_COUNTED,
)
"""On a host whose accelerator is the CPU."""
