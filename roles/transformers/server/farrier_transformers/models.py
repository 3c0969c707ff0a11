"""What a model can be asked for, without knowing torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from farrier_transformers.jobs import Ended, Job
from farrier_transformers.sampling import Sampling

__all__ = ["Embeds", "Generates", "Model", "Work"]

Work = Callable[[Any, Job], Ended]


class Model(Protocol):
    """What the worker needs of any model. ``context`` is in tokens, None where it has no end."""

    context: int | None

    def prove(self) -> None:
        """Do its work once, as small as can be. Raises whatever goes wrong."""

    def is_broken(self) -> bool:
        """Whether its device does not work any more."""


@runtime_checkable
class Generates(Model, Protocol):
    """A model that generates: ``generating.Generator``."""

    def encode(self, prompt: str | list[int]) -> list[int]:
        """The tokens of a plain prompt."""

    def encode_chat(self, messages: list[dict[str, Any]]) -> list[int]:
        """The tokens of a conversation."""

    def room(self, prompt: Sequence[int], asked: int | None) -> int:
        """How many tokens an answer may have."""

    def answer(self, prompt: list[int], sampling: Sampling) -> Work:
        """The work of a job that answers *prompt*."""


@runtime_checkable
class Embeds(Model, Protocol):
    """A model that embeds: ``embedding.Embedder``."""

    def encode(self, text: str | list[int]) -> list[int]:
        """The tokens of one input."""

    def vectors(self, inputs: Sequence[list[int]]) -> Work:
        """The work of a job that embeds *inputs*."""
