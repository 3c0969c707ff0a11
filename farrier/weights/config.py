"""Reads a model's ``config.json``: what decides whether an engine can start with it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ConfigError", "ModelConfig", "as_count", "json_object", "parse"]

_TEXT_PARTS = ("text_config", "llm_config", "language_config")
_CONTEXTS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
_SCALED_ALREADY = frozenset({"su", "longrope", "llama3", "yarn", "deepseek_yarn", "default"})
"""Types of rotary embedding whose ``max_position_embeddings`` is that of the scaled model."""


class ConfigError(ValueError):
    """The file is no model's configuration; the message says why."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What a ``config.json`` says; None is what it does not.

    ``context`` is the longest context in tokens that vLLM lets a model of this configuration have.
    ``kv_heads`` is None as well where keys and values are not kept by heads (MLA).
    ``quantisation`` is the method by the file's own name (``awq``, ``fp8``, ``mxfp4``).
    ``remote_code``: it brings code of its own for its architecture.
    """

    architectures: tuple[str, ...] = ()
    model_type: str = ""
    heads: int | None = None
    kv_heads: int | None = None
    context: int | None = None
    quantisation: str | None = None
    remote_code: bool = False


def parse(text: bytes) -> ModelConfig:
    """The configuration in *text*. Raises :class:`ConfigError`."""
    said = json_object(text)
    model = next((part for key in _TEXT_PARTS if isinstance(part := said.get(key), dict)), said)
    architectures = said.get("architectures")
    names = architectures if isinstance(architectures, list) else []
    return ModelConfig(
        tuple(name for name in names if isinstance(name, str)),
        _text(said.get("model_type")),
        as_count(model.get("num_attention_heads", model.get("n_head"))),
        None if "kv_lora_rank" in model else as_count(model.get("num_key_value_heads")),
        _context(said, model),
        _quantisation(said) or _quantisation(model),
        isinstance(said.get("auto_map"), dict),
    )


def json_object(text: bytes) -> Mapping[str, Any]:
    """The JSON object in *text*. Raises :class:`ConfigError`."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError("is not valid JSON") from None
    if not isinstance(said, dict):
        raise ConfigError("is no JSON object")
    return said


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def as_count(value: object) -> int | None:
    """*value* where it is a number of things, else None."""
    good = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 32
    return int(value) if good else None  # type: ignore[call-overload]


def _quantisation(said: Mapping[str, Any]) -> str | None:
    for key in ("quantization_config", "compression_config"):
        if isinstance(found := said.get(key), dict):
            return _text(found.get("quant_method")).lower() or None
    return None


def _context(said: Mapping[str, Any], model: Mapping[str, Any]) -> int | None:
    found = [count for key in _CONTEXTS if (count := as_count(model.get(key))) is not None]
    longer = as_count(model.get("model_max_length")) or 0
    if not found:
        return longer or None
    factors = [1.0] if "gemma3" in _text(said.get("model_type")) else [1.0, *_factors(model)]
    return max(longer, math.floor(min(found) * max(factors)))


def _factors(model: Mapping[str, Any]) -> Iterator[float]:
    """How much longer its rotary embeddings make the context, one or one for each kind of layer."""
    for key in ("rope_scaling", "rope_parameters"):
        value = model.get(key)
        if not isinstance(value, dict):
            continue
        for one in (value, *(part for part in value.values() if isinstance(part, dict))):
            kind = one.get("rope_type", one.get("type"))
            factor = one.get("factor")
            if kind not in _SCALED_ALREADY and isinstance(factor, int | float) and factor < 1e6:
                yield float(factor)
