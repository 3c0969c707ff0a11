"""What OpenAI's own client is asked to ask an engine, and what is made of the answers.

The questions are those of farrier/fidelity_page.py. An answer is a few words for its table.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from farrier_agent.engines import Engine as Adapter
from farrier_agent.loopback import asker
from farrier_agent.vitals import read_load
from openai import APIStatusError, OpenAI

from farrier.fidelity_page import WAYS
from tests.agent.host import until
from tests.fronts import Fronts

__all__ = ["CONTEXT", "Asking", "answers"]

CONTEXT = 2048
"""Tokens that the model has, and may be asked for, where these questions are asked."""
LONG = 1500
"""Tokens that take seconds, and fit into the context."""
ENOUGH = 20
"""Events of a stream after which its pace is known."""
SHAPE = {"message", "type", "param", "code"}
PATIENCE = 900
"""Seconds for one answer: vLLM compiles what logprobs take when they are first asked for, and on
CPUs that is C++.
"""
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}


@dataclass(frozen=True)
class Asking:
    """One way to one engine: *port* is the engine's own, *adapter* how the agent asks it."""

    way: str
    url: str
    key: str
    model: str
    port: int
    adapter: Adapter

    @property
    def client(self) -> OpenAI:
        """OpenAI's, that asks once."""
        return OpenAI(base_url=self.url, api_key=self.key, max_retries=0, timeout=PATIENCE)

    def chat(self, **fields: Any) -> Any:
        """One answer of the conversation that all questions share, always the same."""
        talk: Any = {"model": self.model, "messages": [{"role": "user", "content": "hello"}]}
        return self.client.chat.completions.create(
            **talk | {"max_tokens": 12, "temperature": 0} | fields
        )

    def complete(self, **fields: Any) -> Any:
        """One text, always the same."""
        text: Any = {"model": self.model, "prompt": "hello", "max_tokens": 12, "temperature": 0}
        return self.client.completions.create(**text | fields)

    def running(self) -> int | None:
        """How many requests the engine says that it runs."""
        load = asyncio.run(read_load(asker(self.port), self.adapter, deadline=30))
        return load.running if load else None


def answers(fronts: Fronts, model: str, port: int, adapter: Adapter) -> dict[str, dict[str, str]]:
    """Each question to the engine on *port*, by every way to it, and what came of it."""
    found: dict[str, dict[str, str]] = {name: {} for name in _QUESTIONS}
    for way in WAYS:
        asking = Asking(way, fronts.urls[way], fronts.key, model, port, adapter)
        for name, question in _QUESTIONS.items():
            with suppress(_NotAskedError):
                found[name][way] = _asked(question, asking)
    return found


class _NotAskedError(Exception):
    """A question that has no answer by this way."""


def _asked(question: Callable[[Asking], str], asking: Asking) -> str:
    try:
        return question(asking)
    except APIStatusError as error:
        return _refusal(error.status_code, error.response.content)


def _refusal(status: int, body: bytes) -> str:
    """The status, and how the error names itself."""
    try:
        error = json.loads(body)["error"]
        name = error["code"] if isinstance(error["code"], str) else error["type"]
    except (ValueError, KeyError, TypeError):
        return f"{status}, other shape"
    missing = sorted(SHAPE - error.keys())
    lacks = f", without {' and '.join(missing)}" if missing else ""
    return f"{status} `{name}`{lacks}"


def _whole(parts: Mapping[str, object]) -> str:
    """*yes*, or what is missing."""
    missing = [name for name, there in parts.items() if not there]
    return f"without {', '.join(missing)}" if missing else "yes"


def _models(asking: Asking) -> str:
    names = [one.id for one in asking.client.models.list()]
    return "yes" if names == [asking.model] else f"names {', '.join(names) or 'none'}"


def _usage(usage: Any) -> bool:
    return bool(
        usage
        and usage.completion_tokens
        and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    )


def _chat(asking: Asking) -> str:
    answer = asking.chat()
    choice = answer.choices[0]
    return _whole(
        {
            "role": choice.message.role == "assistant",
            "text": choice.message.content,
            "reason": choice.finish_reason in {"length", "stop"},
            "usage": _usage(answer.usage),
            "model": answer.model == asking.model,
        }
    )


def _stream(asking: Asking) -> str:
    whole = asking.chat().choices[0]
    events = list(asking.chat(stream=True, stream_options={"include_usage": True}))
    choices = [event.choices[0] for event in events if event.choices]
    pieces = [one.delta.content for one in choices if one.delta.content]
    ends = [one.finish_reason for one in choices if one.finish_reason]
    return _whole(
        {
            "the same text": "".join(pieces) == whole.message.content,
            "pieces": len(pieces) > 1,
            "reason": ends == [whole.finish_reason],
            "usage": _usage(events[-1].usage),
        }
    )


def _completions(asking: Asking) -> str:
    answer = asking.complete()
    choice = answer.choices[0]
    return _whole(
        {
            "text": choice.text,
            "reason": choice.finish_reason in {"length", "stop"},
            "usage": _usage(answer.usage),
            "model": answer.model == asking.model,
        }
    )


def _stop(asking: Asking) -> str:
    text = asking.complete().choices[0].text
    word = text.split()[-1]
    cut = asking.complete(stop=[word]).choices[0]
    if cut.text == text:
        return "ignored"
    kept = text[: text.index(word)]
    return _whole(
        {
            "the text before it": cut.text.rstrip() == kept.rstrip(),
            "reason": cut.finish_reason == "stop",
        }
    )


def _n(asking: Asking) -> str:
    # not of the likeliest words: two of those are the same, and vLLM refuses them
    count = len(asking.chat(n=2, temperature=1).choices)
    return {1: "ignored", 2: "yes"}.get(count, f"{count} choices")


def _logprobs(asking: Asking) -> str:
    told = asking.chat(logprobs=True, top_logprobs=2).choices[0].logprobs
    if not told or not told.content:
        return "ignored"
    return _whole({"those of others": all(len(one.top_logprobs) == 2 for one in told.content)})


def _tools(asking: Asking) -> str:
    """Whether it takes them; the model's words mean nothing, so it may not call one."""
    choice = asking.chat(tools=[TOOL]).choices[0]
    return "called" if choice.message.tool_calls else "yes"


def _response_format(asking: Asking) -> str:
    text = asking.chat(response_format={"type": "json_object"}).choices[0].message.content
    return "yes" if (text or "").lstrip().startswith("{") else "ignored"


def _embeddings(asking: Asking) -> str:
    told = asking.client.embeddings.create(model=asking.model, input=["hello", "hello there"])
    return _whole({"a vector for each": [bool(one.embedding) for one in told.data] == [True, True]})


def _unknown_model(asking: Asking) -> str:
    asking.chat(model="lost")
    return "answered"


def _wrong_type(asking: Asking) -> str:
    asking.chat(extra_body={"temperature": "hot"})
    return "answered"


def _too_long(asking: Asking) -> str:
    asking.chat(messages=[{"role": "user", "content": "hello " * 2 * CONTEXT}])
    return "answered"


def _not_json(asking: Asking) -> str:
    """Not OpenAI's client: it sends JSON only."""
    where = urlsplit(asking.url)
    connection = http.client.HTTPConnection(where.netloc, timeout=PATIENCE)
    headers = {"Authorization": f"Bearer {asking.key}", "Content-Type": "application/json"}
    try:
        connection.request("POST", f"{where.path}/chat/completions", b"{", headers)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    return "answered" if answer.status == 200 else _refusal(answer.status, body)


def _wrong_key(asking: Asking) -> str:
    if asking.way != "gateway":
        raise _NotAskedError
    asking.client.with_options(api_key="wrong").models.list()
    return "answered"


def _leaves(asking: Asking) -> str:
    """Whole seconds from a client's leaving within which the engine runs nothing any more."""
    if asking.running() is None:
        return "it does not tell"
    stream = asking.complete(max_tokens=LONG, stream=True, extra_body={"ignore_eos": True})
    next(stream)
    begun = time.monotonic()
    for _ in range(ENOUGH):
        next(stream)
    left = (time.monotonic() - begun) / ENOUGH * (LONG - ENOUGH - 1)
    assert asking.running() == 1, "it does not count what it streams: its end would mean nothing"
    gone = time.monotonic()
    stream.close()
    until(lambda: asking.running() == 0, left + 60)
    took = time.monotonic() - gone
    return f"{math.ceil(took)} s" if took < left / 2 else "generates on"


_QUESTIONS: Mapping[str, Callable[[Asking], str]] = {
    "models": _models,
    "chat": _chat,
    "stream": _stream,
    "completions": _completions,
    "stop": _stop,
    "n": _n,
    "logprobs": _logprobs,
    "tools": _tools,
    "response_format": _response_format,
    "embeddings": _embeddings,
    "unknown_model": _unknown_model,
    "not_json": _not_json,
    "wrong_type": _wrong_type,
    "too_long": _too_long,
    "wrong_key": _wrong_key,
    "leaves": _leaves,
}
