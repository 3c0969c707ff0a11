"""What clients send: OpenAI's bodies, as far as they are understood."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from farrier_transformers.errors import ApiError

__all__ = ["ChatBody", "CompletionBody", "EmbeddingBody", "GenerationBody", "text_of"]

MOST_STOPS = 16

_Stop = Annotated[str, Field(min_length=1)]

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
}
"""Fields that are not understood, and the values with which they ask for nothing."""


class GenerationBody(BaseModel):
    """What both kinds of generation have. Other fields are ignored unless they ask for something
    that would be missing from the answer.
    """

    model_config = ConfigDict(extra="allow")

    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    seed: int | None = None
    stop: Annotated[list[_Stop], Field(max_length=MOST_STOPS)] | _Stop | None = None
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    ignore_eos: bool = False

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop words."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def counts(self) -> bool:
        """Whether a stream's last event has the usage."""
        return bool((self.stream_options or {}).get("include_usage"))

    @model_validator(mode="after")
    def _asks_for_nothing_else(self) -> GenerationBody:
        for name, value in (self.model_extra or {}).items():
            if name not in _NEUTRAL or value is None:
                continue
            # by type, too: logprobs=0 asks for the logarithms of the tokens that were chosen
            if not any(
                value == one and isinstance(value, bool) == isinstance(one, bool)
                for one in _NEUTRAL[name]
            ):
                raise ValueError(f"{name} is not supported by this server")
        return self


class Message(BaseModel):
    """One message of a conversation; what else it has goes to the model's chat template."""

    model_config = ConfigDict(extra="allow")

    role: str = Field(min_length=1)
    content: str | list[dict[str, Any]] | None = None


class ChatBody(GenerationBody):
    """``POST /v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    @property
    def conversation(self) -> list[dict[str, Any]]:
        """The messages as chat templates take them, with text only."""
        return [
            message.model_dump(exclude_none=True) | {"content": text_of(message.content, number)}
            for number, message in enumerate(self.messages)
        ]


class CompletionBody(GenerationBody):
    """``POST /v1/completions``."""

    prompt: str | list[str] | list[int]

    @property
    def only_prompt(self) -> str | list[int]:
        """The prompt, as text or tokens. Raises :class:`ApiError` for none or several."""
        if isinstance(self.prompt, str):
            return self.prompt
        texts = [one for one in self.prompt if isinstance(one, str)]
        if not texts and self.prompt:
            return [one for one in self.prompt if isinstance(one, int)]
        if len(texts) != 1:
            raise ApiError(
                400, f"prompt: one prompt for each request, not {len(texts)}", param="prompt"
            )
        return texts[0]


class EmbeddingBody(BaseModel):
    """``POST /v1/embeddings``."""

    model_config = ConfigDict(extra="allow")

    model: str
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)

    @property
    def inputs(self) -> list[str | list[int]]:
        """What is to be embedded, each as text or tokens. Raises :class:`ApiError` for nothing."""
        given = [self.input] if isinstance(self.input, str) else self.input
        numbers = [one for one in given if isinstance(one, int)]
        found: list[str | list[int]] = [one for one in given if not isinstance(one, int)]
        if numbers:
            found = [numbers]
        if not found or not all(found):
            raise ApiError(400, "input: must not be empty", param="input")
        return found


def text_of(content: str | list[dict[str, Any]] | None, number: int) -> str:
    """The text of a message's *content*. Raises :class:`ApiError` where it has anything else."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for part in content:
        text = part.get("text")
        if part.get("type") != "text" or not isinstance(text, str):
            raise ApiError(
                400,
                f"messages.{number}.content: this server takes text only,"
                f" not {str(part.get('type'))[:50]!r}",
                param="messages",
            )
        texts.append(text)
    return "\n".join(texts)
