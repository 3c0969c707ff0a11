"""What versions of engines know: read from their sources, kept as data beside this module.

``vllm-VERSION.json``: ``architectures`` are those of ``model_executor/models/registry.py``,
``model_types`` those of the locked Transformers' ``models/auto`` and of vLLM's own
``transformers_utils/config.py``, and ``quantisations`` maps a method to the lowest compute
capability (75 is 7.5) that its ``get_min_capability`` names. ``llama_cpp.json`` has the
architectures of gguf-py's ``constants.py`` (llama-cpp-python 0.3.36).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from farrier.nvidia.generations import Generation

__all__ = ["CAPABILITY", "Vllm", "llama_cpp_architectures", "vllm"]

_HERE = Path(__file__).parent

CAPABILITY: Mapping[Generation, int] = {
    Generation.KEPLER: 30,
    Generation.MAXWELL: 50,
    Generation.PASCAL: 60,
    Generation.VOLTA: 70,
    Generation.TURING: 75,
    Generation.AMPERE: 80,
    Generation.ADA: 89,
    Generation.HOPPER: 90,
    Generation.BLACKWELL: 100,
}
"""The lowest compute capability of a generation, times ten."""


@dataclass(frozen=True, slots=True)
class Vllm:
    """What one version of vLLM knows."""

    architectures: frozenset[str]
    model_types: frozenset[str]
    quantisations: Mapping[str, int]


@cache
def vllm(version: str) -> Vllm | None:
    """What vLLM *version* knows; None where that was not looked up."""
    path = _HERE / f"vllm-{version}.json"
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)+", version) or not path.is_file():
        return None
    said = json.loads(path.read_text(encoding="utf-8"))
    return Vllm(
        frozenset(said["architectures"]), frozenset(said["model_types"]), said["quantisations"]
    )


@cache
def llama_cpp_architectures() -> frozenset[str]:
    """The architectures that llama.cpp knew."""
    text = (_HERE / "llama_cpp.json").read_text(encoding="utf-8")
    return frozenset(json.loads(text)["architectures"])
