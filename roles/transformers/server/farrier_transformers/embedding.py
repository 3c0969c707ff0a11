"""Embeds text: one vector for each input, pooled as the model's own files say."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from farrier_transformers.errors import ApiError, StartError
from farrier_transformers.generating import is_broken
from farrier_transformers.jobs import Ended, Job, Vector
from farrier_transformers.metrics import Meters
from farrier_transformers.models import Work

__all__ = ["Embedder", "pooling"]

_POOLING = Path("1_Pooling") / "config.json"
"""Where sentence-transformers keeps how vectors are pooled."""


class Embedder:
    """A model that embeds. ``context`` is in tokens, None where it has no end."""

    def __init__(
        self, model: Any, tokenizer: Any, context: int | None, meters: Meters, directory: Path
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self.context = context
        self._meters = meters
        self._encoding = threading.Lock()
        self._pooling = pooling(directory)

    def prove(self) -> None:
        """Embed a word. Raises :class:`StartError` where that is no vector."""
        values = self._embed(self.encode("Hello"))
        if not values or not all(map(math.isfinite, values)):
            raise StartError("the model loaded, but what it makes of a word is no vector")

    def is_broken(self) -> bool:
        """Whether its device does not work any more."""
        return is_broken(self._model.device)

    def encode(self, text: str | list[int]) -> list[int]:
        """The tokens of one input. Raises :class:`ApiError` for too many or none."""
        if isinstance(text, str):
            with self._encoding:
                tokens = list(self._tokenizer(text, verbose=False)["input_ids"])
        else:
            tokens = text
            size = self._model.get_input_embeddings().num_embeddings
            if not all(0 <= token < size for token in tokens):
                raise ApiError(400, f"input: tokens are numbers from 0 to {size - 1}")
        if not tokens:
            raise ApiError(400, "input: must not be empty", param="input")
        if self.context is not None and len(tokens) > self.context:
            raise ApiError(
                400,
                f"the context has {self.context} tokens, and the input has {len(tokens)}",
                code="context_length_exceeded",
            )
        return tokens

    def vectors(self, inputs: Sequence[list[int]]) -> Work:
        """The work of a job that embeds *inputs*, one after the other."""

        def embed(_: Any, job: Job) -> Ended:
            for tokens in inputs:
                if job.cancelled:
                    break
                job.tell(Vector(self._embed(tokens), len(tokens)))
                self._meters.prompt_tokens.inc(len(tokens))
            return Ended("stop", sum(map(len, inputs)), 0)

        return embed

    def _embed(self, tokens: list[int]) -> list[float]:
        batch = torch.tensor([tokens], device=self._model.device)
        with torch.inference_mode():
            said = self._model(input_ids=batch, attention_mask=torch.ones_like(batch))
            states = said.last_hidden_state[0].float()
            if self._pooling == "cls":
                vector = states[0]
            elif self._pooling == "lasttoken":
                vector = states[-1]
            else:
                vector = states.mean(dim=0)
            values: list[float] = torch.nn.functional.normalize(vector, dim=0).tolist()
            return values


def pooling(directory: Path) -> str:
    """``mean``, ``cls`` or ``lasttoken``. Raises :class:`StartError` for what is none of these."""
    try:
        said = json.loads((directory / _POOLING).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "mean"
    modes = [name for name, on in said.items() if name.startswith("pooling_mode_") and on is True]
    known = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_lasttoken": "lasttoken",
    }
    if len(modes) != 1 or modes[0] not in known:
        raise StartError(f"{directory / _POOLING} asks for {', '.join(modes) or 'no pooling'}")
    return known[modes[0]]
