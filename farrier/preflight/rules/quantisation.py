"""Quantised weights: whether the engine knows how, and the GPUs have instructions for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farrier.nvidia.generations import generation_of
from farrier.preflight.rules.weights import configs, known_of
from farrier.preflight.verdict import Code, Reason
from farrier.weights.known import CAPABILITY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farrier.preflight.found import Case

__all__ = ["CODES", "RULES"]

QUANTISATION = Code(
    "model-quantisation",
    "refuse",
    "The engine's version does not know how the weights are quantised.",
    'models: {model} needs source= of weights in one of {known}, or engine="custom"',
    "inventory",
)
QUANTISATION_GPU = Code(
    "model-quantisation-gpu",
    "refuse",
    "The weights are quantised in a way that the GPUs have no instructions for.",
    "models: {model} needs GPUs of compute capability {needed} or newer, or other weights",
    "inventory",
)
QUANTISATION_FLAG = Code(
    "model-quantisation-flag",
    "refuse",
    "The inventory names another quantisation than that of the weights: vLLM ends at once.",
    "models: {model} without 'quantization' in args, which is read from config.json",
    "inventory",
)

_FAMILIES = {
    **dict.fromkeys(("awq", "auto_awq", "awq_marlin"), "awq"),
    **dict.fromkeys(("gptq", "auto_gptq", "gptq_marlin"), "gptq"),
    **{name: name for name in ("fp8", "mxfp4", "compressed-tensors")},
}
"""Methods that are never taken for one another; of others a flag may mean the same as a file."""


def quantisation(case: Case) -> Iterator[Reason]:
    """Weights that the engine knows, and that the GPUs have instructions for."""
    known = known_of(case)
    for model, config in configs(case, "vllm"):
        given = model.args.get("quantization")
        method = str(given) if given is not None else config.quantisation
        if known is None or method is None:
            continue
        flag, file = _FAMILIES.get(str(given)), _FAMILIES.get(config.quantisation or "")
        if flag and file and flag != file:
            yield QUANTISATION_FLAG.reason(
                f"model {model.name}: quantization {given!r}, and config.json says"
                f" {config.quantisation!r}",
                model=model.name,
            )
            continue
        if method not in known.quantisations:
            yield QUANTISATION.reason(
                f"model {model.name}: vLLM {case.wanted.version_of('vllm')} does not know the"
                f" quantisation {method!r}",
                model=model.name,
                known=", ".join(
                    sorted({"awq", "gptq", "fp8", "mxfp4"} & known.quantisations.keys())
                ),
            )
            continue
        needed = known.quantisations[method]
        gpus = case.found.pci.gpus if case.found.pci else ()
        old = {
            one.value
            for index in model.gpus
            if index < len(gpus) and (one := generation_of(gpus[index].device))
            if CAPABILITY[one] < needed
        }
        if old:
            yield QUANTISATION_GPU.reason(
                f"model {model.name}: {method} needs compute capability {needed / 10}, which"
                f" {', '.join(sorted(old))} does not have",
                model=model.name,
                needed=needed / 10,
            )


CODES = (QUANTISATION, QUANTISATION_GPU, QUANTISATION_FLAG)
RULES = (quantisation,)
