"""A LoRA adapter of the lab's tiny model, made on the spot: what it answers is not what tiny does.

The formats: safetensors' README, and PEFT's ``adapter_config.json``.
"""

from __future__ import annotations

import json
import random
from array import array
from pathlib import Path

from farrier.lab.tiny_model import HIDDEN, LAYERS

__all__ = ["RANK", "write_adapter"]

RANK = 8
_MODULES = ("q_proj", "v_proj")


def write_adapter(directory: Path, *, rank: int = RANK, seed: int = 1) -> None:
    """Write an adapter of *rank* into *directory*; another *seed* is another adapter."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)  # noqa: S311 - no secret
    header: dict[str, object] = {}
    data = b""
    for layer in range(LAYERS):
        for module in _MODULES:
            for part, shape in (("A", [rank, HIDDEN]), ("B", [HIDDEN, rank])):
                values = array("f", [rng.uniform(-1, 1) for _ in range(rank * HIDDEN)]).tobytes()
                name = f"base_model.model.model.layers.{layer}.self_attn.{module}.lora_{part}"
                header[f"{name}.weight"] = {
                    "dtype": "F32",
                    "shape": shape,
                    "data_offsets": [len(data), len(data) + len(values)],
                }
                data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    weights = len(text).to_bytes(8, "little") + text + data
    (directory / "adapter_model.safetensors").write_bytes(weights)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny",
        "r": rank,
        "lora_alpha": 2 * rank,
        "bias": "none",
        "target_modules": list(_MODULES),
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))
