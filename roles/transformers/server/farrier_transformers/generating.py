"""Generates text, token by token, one request at a time.

The loop is the model's own ``generate``, so that whatever Transformers can generate with is served:
encoder-decoders, recurrent models, models with code of their own. It calls back after each token.
"""

from __future__ import annotations

import copy
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import torch

from farrier_transformers.errors import ApiError, StartError
from farrier_transformers.jobs import Ended, Job, Piece
from farrier_transformers.metrics import Meters
from farrier_transformers.models import Work
from farrier_transformers.sampling import Sampling
from farrier_transformers.text import Text

__all__ = ["Generator", "is_broken"]


class Generator:
    """A model that generates. ``context`` is in tokens, None where it has no end."""

    def __init__(self, model: Any, tokenizer: Any, context: int | None, meters: Meters) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self.context = context
        self._meters = meters
        # A tokenizer may not be used by two threads at once.
        self._encoding = threading.Lock()
        ends = model.generation_config.eos_token_id
        if ends is None:
            ends = tokenizer.eos_token_id
        self._ends = frozenset([ends] if isinstance(ends, int) else ends or [])

    def prove(self) -> None:
        """Generate one token. Raises :class:`StartError` where there is none."""
        made: list[int] = []
        self._run([*self.encode("Hello")], Sampling(max_tokens=1, temperature=0), made.append)
        if len(made) != 1:
            raise StartError(f"the model loaded, but made {len(made)} tokens when asked for one")

    def is_broken(self) -> bool:
        """Whether its device does not work any more."""
        return is_broken(self._model.device)

    def encode(self, prompt: str | list[int]) -> list[int]:
        """The tokens of a plain prompt. Raises :class:`ApiError` where it is none."""
        if not isinstance(prompt, str):
            self._known(prompt)
            return prompt
        with self._encoding:
            return list(self._tokenizer(prompt, verbose=False)["input_ids"])

    def encode_chat(self, messages: list[dict[str, Any]]) -> list[int]:
        """The tokens of a conversation, by the model's template. Raises :class:`ApiError`."""
        if not self._tokenizer.chat_template:
            raise ApiError(
                400,
                "this model has no chat_template, so it takes no messages: ask /v1/completions,"
                " or give its tokenizer_config.json a chat_template",
                code="no_chat_template",
            )
        with self._encoding:
            try:
                text = self._tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True
                )
            except (jinja2.TemplateError, TypeError, ValueError) as error:
                raise ApiError(
                    400, f"messages: the model's chat_template refuses them: {error}"[:500],
                    param="messages",
                ) from error  # fmt: skip
            tokens = self._tokenizer(text, add_special_tokens=False, verbose=False)
            return list(tokens["input_ids"])

    def room(self, prompt: Sequence[int], asked: int | None) -> int:
        """How many tokens an answer to *prompt* may have. Raises :class:`ApiError` for none."""
        if not prompt:
            raise ApiError(400, "the prompt is empty", param="prompt")
        if self.context is None:
            return asked or 1024
        beside = 0 if self._model.config.is_encoder_decoder else len(prompt)
        room = self.context - beside
        if len(prompt) > self.context or room < 1 or (asked or 1) > room:
            wanted = f" and {asked} for the answer" if asked else ""
            raise ApiError(
                400,
                f"the context has {self.context} tokens, and the prompt has {len(prompt)}{wanted}",
                code="context_length_exceeded",
            )
        return asked or room

    def answer(self, prompt: list[int], sampling: Sampling) -> Work:
        """The work of a job that answers *prompt*."""
        return lambda _, job: self._answer(job, prompt, sampling)

    def _answer(self, job: Job, prompt: list[int], sampling: Sampling) -> Ended:
        text = Text(self._decode, sampling.stops)
        made: list[int] = []

        def take(token: int) -> bool:
            if not made:
                self._meters.prompt_tokens.inc(len(prompt))
                self._meters.first_token.observe(time.monotonic() - job.arrived)
            made.append(token)
            self._meters.answer_tokens.inc()
            if (sampling.ignore_eos or token not in self._ends) and (piece := text.add(token)):
                job.tell(Piece(piece))
            return job.cancelled or text.stopped

        if not job.cancelled:
            self._run(prompt, sampling, take)
        if rest := text.rest():
            job.tell(Piece(rest))
        natural = bool(made) and made[-1] in self._ends and not sampling.ignore_eos
        reason = "stop" if text.stopped or natural else "length"
        return Ended(reason, len(prompt), len(made))

    def _run(
        self, prompt: list[int], sampling: Sampling, take: Callable[[int], bool | None]
    ) -> None:
        """Call *take* with each token until it says True, an end token comes or it is enough."""
        torch.manual_seed(secrets.randbits(63) if sampling.seed is None else sampling.seed)
        tokens = torch.tensor([prompt], device=self._model.device)
        with torch.inference_mode():
            self._model.generate(
                inputs=tokens,
                attention_mask=torch.ones_like(tokens),
                generation_config=self._settings(sampling),
                stopping_criteria=[_Each(take)],
            )

    def _settings(self, sampling: Sampling) -> Any:
        """*sampling* over what the model's generation_config.json says."""
        settings = copy.deepcopy(self._model.generation_config)
        chosen = sampling.over(
            settings.temperature if settings.do_sample else None,
            settings.top_p if settings.do_sample else None,
            settings.top_k if settings.do_sample else None,
        )
        ends = None if sampling.ignore_eos else sorted(self._ends) or None
        pad = self._tokenizer.pad_token_id
        settings.update(
            **chosen,
            max_new_tokens=sampling.max_tokens,
            max_length=None,
            min_length=None,
            num_beams=1,
            num_return_sequences=1,
            return_dict_in_generate=False,
            eos_token_id=ends,
            pad_token_id=pad if pad is not None else min(self._ends, default=0),
        )
        return settings

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def _known(self, tokens: list[int]) -> None:
        size = self._model.get_input_embeddings().num_embeddings
        if not all(0 <= token < size for token in tokens):
            raise ApiError(400, f"prompt: tokens are numbers from 0 to {size - 1}", param="prompt")


@dataclass(frozen=True)
class _Each:
    """What ``generate`` calls after each token, to hear whether that was the last."""

    take: Callable[[int], bool | None]

    def __call__(self, tokens: Any, _scores: Any, **_: Any) -> Any:
        over = bool(self.take(int(tokens[0, -1])))
        return torch.full((tokens.shape[0],), over, dtype=torch.bool, device=tokens.device)


def is_broken(device: torch.device) -> bool:
    """Whether *device* fails at the smallest of tasks: a CUDA context does after many errors."""
    try:
        return int(torch.ones(1, device=device).sum().item()) != 1
    except RuntimeError:
        return True
