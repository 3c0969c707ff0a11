"""OpenAI's answers, as JSON values, and vLLM's metrics, as text."""

from __future__ import annotations

import time
from typing import Any

from .work import Work

WORDS = ("the", "stand-in", "engine", "answers", "with", "words", "of", "its", "own")
DEFAULT_TOKENS = 16


def tokens_wanted(request: dict[str, Any]) -> int:
    """How many tokens *request* asks for."""
    wanted = request.get("max_completion_tokens") or request.get("max_tokens") or DEFAULT_TOKENS
    good = isinstance(wanted, int) and not isinstance(wanted, bool) and wanted > 0
    return wanted if good else DEFAULT_TOKENS


def prompt_tokens(request: dict[str, Any]) -> int:
    """About as many tokens as *request* has words, at least one."""
    return max(1, len(str(request.get("messages") or request.get("prompt") or "").split()))


def word(number: int) -> str:
    """The text of token *number*."""
    return WORDS[number % len(WORDS)] + " "


def _envelope(kind: str, model: str) -> dict[str, Any]:
    name = f"standin-{time.time_ns():x}"
    return {"id": name, "object": kind, "created": int(time.time()), "model": model}


def completion(
    model: str, count: int, prompt: int, *, chat: bool, finish: str = "length"
) -> dict[str, Any]:
    """A whole answer of *count* tokens."""
    text = "".join(map(word, range(count)))
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": None}
    choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    envelope = _envelope("chat.completion" if chat else "text_completion", model)
    return envelope | {"choices": [choice], "usage": _usage(count, prompt)}


def _usage(count: int, prompt: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": count + prompt}


class Chunks:
    """The events of one stream; they share a name."""

    def __init__(self, model: str, *, chat: bool) -> None:
        self._chat = chat
        self._head = _envelope("chat.completion.chunk" if chat else "text_completion", model)

    def chunk(self, text: str, *, first: bool = False, finish: str | None = None) -> dict[str, Any]:
        """One event with *text*; *finish* makes it the last one."""
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": finish}
        if self._chat:
            choice["delta"] = {"content": text} | ({"role": "assistant"} if first else {})
        else:
            choice["text"] = text
        return self._head | {"choices": [choice]}

    def usage(self, count: int, prompt: int) -> dict[str, Any]:
        """The event that comes last where a client asked for it."""
        return self._head | {"choices": [], "usage": _usage(count, prompt)}


def models(model: str) -> dict[str, Any]:
    """The list of the one model."""
    card = {"id": model, "object": "model", "created": 0, "owned_by": "standin"}
    return {"object": "list", "data": [card]}


def problem(status: int, message: str) -> dict[str, Any]:
    """OpenAI's error."""
    return {"error": {"message": message, "type": "standin", "code": status}}


def exposition(model: str, work: Work) -> bytes:
    """Prometheus' text, as vLLM has it: names, types and labels."""
    labels = f'model_name="{model}",engine="0"'
    families = (
        ("gauge", "num_requests_running", "Requests being answered.", work.running),
        ("gauge", "num_requests_waiting", "Requests waiting to be answered.", work.waiting),
        ("counter", "prompt_tokens_total", "Prompt tokens processed.", work.prompted),
        ("counter", "generation_tokens_total", "Tokens generated.", work.generated),
    )
    lines = []
    for kind, name, text, value in families:
        lines += [f"# HELP vllm:{name} {text}", f"# TYPE vllm:{name} {kind}"]
        lines.append(f"vllm:{name}{{{labels}}} {float(value)}")
    lines.append("# HELP vllm:request_success_total Requests that ended, by reason.")
    lines.append("# TYPE vllm:request_success_total counter")
    ended = work.ended()
    for reason in ("stop", "length", "abort"):
        sample = f'vllm:request_success_total{{{labels},finished_reason="{reason}"}}'
        lines.append(f"{sample} {float(ended.get(reason, 0))}")
    return "\n".join([*lines, ""]).encode()
