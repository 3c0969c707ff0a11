"""Reads a LoRA adapter's ``adapter_config.json``: what decides whether vLLM can start with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farrier.weights.config import as_count, json_object

__all__ = ["Adapter", "parse_adapter"]

_PLAIN_STARTS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})
_HEADS = frozenset({"classifier", "score"})
_FEATURES = {
    "use_dora": "DoRA",
    "lora_bias": "a bias (lora_bias)",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "replicated layers",
    "use_bdlora": "BD-LoRA",
    "use_qalora": "QALoRA",
}


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an ``adapter_config.json`` says; None or "" is what it does not.

    ``rank`` is its highest, of all modules. ``base`` is the model that it was made for, as it was
    named then: a directory or a repository. ``unsupported`` is what vLLM refuses of it, in words.
    """

    rank: int | None = None
    base: str = ""
    unsupported: str = ""


def parse_adapter(text: bytes) -> Adapter:
    """The LoRA adapter whose ``adapter_config.json`` is *text*. Raises :class:`ConfigError`."""
    said = json_object(text)
    pattern = said.get("rank_pattern")
    ranks = [said.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
    base = said.get("base_model_name_or_path")
    found = [rank for rank in map(as_count, ranks) if rank is not None]
    return Adapter(
        max(found, default=None),
        base if isinstance(base, str) else "",
        _unsupported(said),
    )


def _unsupported(said: Mapping[str, Any]) -> str:
    """What of an adapter vLLM 0.32.0 ends at (lora/peft_helper.py); "" for one that it takes."""
    kind = said.get("peft_type", "LORA")
    if kind != "LORA":
        return f"is no LoRA but {kind!r}"
    if said.get("r") is None or said.get("lora_alpha") is None:
        return "has no r or no lora_alpha"
    saved = said.get("modules_to_save")
    if saved and not (isinstance(saved, list) and set(map(str, saved)) <= _HEADS):
        return "brings whole modules besides (modules_to_save)"
    used = [name for feature, name in _FEATURES.items() if said.get(feature)]
    if said.get("bias", "none") != "none":
        used.append(f"a bias ({said['bias']!r})")
    start = said.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in _PLAIN_STARTS:
        used.append(f"init_lora_weights {start!r}, which changes the weights of its model")
    return f"uses {' and '.join(used)}" if used else ""
