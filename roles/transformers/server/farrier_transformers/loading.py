"""Loads a model with Transformers, on the device that was asked for or not at all."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from farrier_transformers.embedding import Embedder
from farrier_transformers.errors import StartError
from farrier_transformers.generating import Generator
from farrier_transformers.metrics import Meters
from farrier_transformers.options import Options

__all__ = ["load"]

log = logging.getLogger(__name__)

_ABSURD = 10**9
"""Tokenizers without a limit say more than this."""
_AUTO = ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM")


@dataclass(frozen=True)
class _Plan:
    """The class that the model is loaded as, and whether it generates."""

    kind: Any
    generates: bool


def load(options: Options, meters: Meters) -> Generator | Embedder:
    """The model that *options* name. Raises :class:`StartError` where it cannot be served so."""
    device = _device(options.device)
    common = {"revision": options.revision, "trust_remote_code": options.trust_remote_code}
    try:
        config = transformers.AutoConfig.from_pretrained(options.model, **common)
        tokenizer = transformers.AutoTokenizer.from_pretrained(options.model, **common)
        plan = _plan(options, config)
        model, told = plan.kind.from_pretrained(
            options.model,
            **common,
            config=config,
            dtype=options.dtype,
            use_safetensors=None if options.allow_pickle else True,
            device_map={"": device},
            output_loading_info=True,
        )
    except (OSError, ValueError, ImportError, AttributeError) as error:
        raise StartError(_why(options, error)) from error
    _whole(options.model, plan, told)
    model.eval()
    for block in _blocks(model):
        block.register_forward_hook(lambda *_: meters.blocks.inc())
    context = _context(options, config, tokenizer)
    log.info(
        "%s as %s on %s, %s, context %s", options.name, plan.kind.__name__, device, model.dtype,
        context,
    )  # fmt: skip
    if plan.generates:
        return Generator(model, tokenizer, context, meters)
    return Embedder(model, tokenizer, context, meters, Path(options.model))


def _device(asked: str) -> torch.device:
    device = torch.device(asked)
    if device.type == "cuda":
        seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if seen <= (device.index or 0):
            raise StartError(
                f"--device {asked}: torch {torch.__version__} (built for CUDA"
                f" {torch.version.cuda}) sees {seen} CUDA devices. Look at nvidia-smi and"
                " CUDA_VISIBLE_DEVICES. The CPU is never taken instead; --device cpu asks for it"
            )
    return device


def _plan(options: Options, config: Any) -> _Plan:
    """What the checkpoint was saved as, unless the model brings code of its own."""
    auto_map = getattr(config, "auto_map", None) or {}
    own = next((name for name in _AUTO if name in auto_map), None)
    names = config.architectures or []
    saved = getattr(transformers, names[0], None) if names else None
    if own is not None:
        kind, can = getattr(transformers, own), True
    elif saved is not None:
        kind, can = saved, saved.can_generate()
    else:
        kind, can = transformers.AutoModelForCausalLM, not auto_map
    if options.task == "generate" and not can:
        raise StartError(f"--task generate: {', '.join(names) or 'the model'} cannot generate")
    # modules.json: a directory of sentence-transformers, whatever its architecture could do
    embeds = (Path(options.model) / "modules.json").is_file()
    if options.task == "embed" or (options.task == "auto" and (embeds or not can)):
        return _Plan(transformers.AutoModel, generates=False)
    return _Plan(kind, generates=True)


def _why(options: Options, error: Exception) -> str:
    words = " ".join(str(error).split())[:700]
    hint = ""
    if "trust_remote_code" in words:
        hint = ". It is run with --trust-remote-code only: read it first"
    elif "safetensors" in words and not options.allow_pickle:
        hint = (
            ". Other weights than safetensors are Python pickles, which can run code:"
            " --allow-pickle takes them"
        )
    return f"{options.model} could not be loaded: {type(error).__name__}: {words}{hint}"


def _whole(path: str, plan: _Plan, told: Any) -> None:
    """Weights that are missing would be random numbers: the answers would be noise."""
    missing = told["missing_keys"] if isinstance(told, dict) else told.missing_keys
    lacking = sorted(key for key in missing if plan.generates or "pooler" not in key)
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise StartError(
            f"{path} lacks weights of {plan.kind.__name__}: {', '.join(lacking[:3])}{more}. Is the"
            " copy whole, and config.json that of these weights?"
        )


def _blocks(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The layers: the members of the outermost lists of modules."""
    for child in module.children():
        if isinstance(child, torch.nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)


def _context(options: Options, config: Any, tokenizer: Any) -> int | None:
    """Tokens that the model was made for, or fewer where so many were asked for."""
    text = config.get_text_config()
    limits = [getattr(text, name, None) for name in ("max_position_embeddings", "n_positions")]
    limits.append(tokenizer.model_max_length)
    known = [limit for limit in limits if isinstance(limit, int) and 0 < limit < _ABSURD]
    most = min(known, default=None)
    asked = options.max_model_len
    if asked is not None and most is not None and asked > most:
        raise StartError(f"--max-model-len {asked}: the model was made for {most} tokens")
    return asked or most
