"""How the next token is chosen. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Sampling"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a request says of it; None is what the model's own settings say, or OpenAI's default."""

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stops: tuple[str, ...] = ()
    ignore_eos: bool = False

    def over(
        self, temperature: float | None, top_p: float | None, top_k: int | None
    ) -> dict[str, Any]:
        """The arguments of ``generate``, over the model's own settings (None: it has none)."""
        own = temperature if temperature is not None else 1.0
        warm = self.temperature if self.temperature is not None else own
        if warm == 0:
            return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        asked = self.top_k if self.top_k is not None else top_k
        return {
            "do_sample": True,
            "temperature": warm,
            "top_p": self.top_p if self.top_p is not None else top_p,
            # 0 and -1 mean all, which is None to Transformers
            "top_k": asked if asked is not None and asked > 0 else 0,
        }
