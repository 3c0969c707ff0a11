"""What can be wrong with the way in which vLLM is laid out: GPUs, adapters, a draft model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from farrier.spec.check_hosts import check_hosts, check_ray, check_stages
from farrier.spec.engines import Engine
from farrier.spec.model import HubSource, Model, PathSource, parse_source
from farrier.spec.problems import Finding
from farrier.spec.values import is_served_name, is_whole, shown

__all__ = ["LORA_RANKS", "check_layout", "clashes", "draft_of"]

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM takes (0.32.0, config/lora.py)."""


def check_layout(model: Model, engine: Engine, accelerator: str) -> Iterator[Finding]:
    """Every problem of the layout of *model*, which *engine* serves on *accelerator*."""
    yield from _adapters(model, engine)
    yield from check_hosts(model, engine)
    if not isinstance(model.args, Mapping) or engine.by_command(model.command):
        return
    if engine.parallel:
        yield from _ranks(model, model.args)
        yield from _speculation(model, model.args)
    if engine.sizes and accelerator == "cuda":
        yield from _parallelism(model, model.args, engine.sizes)
    if engine.parallel and accelerator != "cuda":
        yield from check_stages(model)
    if engine.parallel:
        yield from check_ray(model, accelerator)


def _adapters(model: Model, engine: Engine) -> Iterator[Finding]:
    lora: Any = model.lora
    example = "{'law': 'path:/srv/adapters/law'}"
    if not isinstance(lora, Mapping):
        yield "lora", f"must be a dict such as {example}, not {shown(lora)}"
        return
    if lora and not engine.parallel:
        yield "lora", f"engine {engine.name!r} gets its adapters otherwise; lora is for 'vllm'"
        return
    for name, source in lora.items():
        if not is_served_name(name):
            yield "lora", f"{shown(name)} has other characters than letters, digits and . _ : / -"
            continue
        path = f"lora.{name}"
        if name == model.name:
            yield path, "is the model's own name: clients ask for an adapter by another one"
            continue
        try:
            parsed = parse_source(source)
        except ValueError as error:
            yield path, str(error)
            continue
        if not isinstance(parsed, PathSource) or parsed.gguf:
            yield path, f"must be a directory on the host, as in {example}"


def _ranks(model: Model, args: Mapping[str, Any]) -> Iterator[Finding]:
    rank = args.get("max-lora-rank", LORA_RANKS[1])
    if not is_whole(rank) or rank not in LORA_RANKS:
        ranks = ", ".join(map(str, LORA_RANKS))
        yield "args.max-lora-rank", f"must be one of {ranks}, not {shown(rank)}"
    if model.lora and "lora-modules" in args:
        yield "args.lora-modules", "the adapters are the model's field lora: leave it out"
        return
    for flag in ("lora-modules", "max-lora-rank"):
        if flag in args and args.get("enable-lora") is not True and not model.lora:
            yield f"args.{flag}", "has no effect without args={'enable-lora': True}"
            return


def draft_of(model: Model) -> str | None:
    """The directory of the draft model of speculative decoding; None without, or of the hub."""
    said = _speculative(model.args) if isinstance(model.args, Mapping) else None
    draft = said.get("model") if said else None
    return draft if isinstance(draft, str) and draft.startswith("/") else None


def _speculative(args: Mapping[str, Any]) -> Mapping[str, Any] | None:
    try:
        said = json.loads(args.get("speculative-config", "{}"))
    except (ValueError, TypeError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _speculation(model: Model, args: Mapping[str, Any]) -> Iterator[Finding]:
    flag = "speculative-config"
    if flag not in args:
        return
    said = _speculative(args)
    if said is None:
        example = json.dumps({"method": "ngram", "num_speculative_tokens": 4})
        yield f"args.{flag}", f"must be a JSON object as text, such as {example!r}"
        return
    tokens, draft = said.get("num_speculative_tokens"), said.get("model")
    if tokens is None and draft is None:
        yield f"args.{flag}", "has no num_speculative_tokens, without which vLLM does not start"
    elif tokens is not None and (not is_whole(tokens) or tokens < 1):
        yield f"args.{flag}", f"num_speculative_tokens must be a whole number from 1, not {tokens}"
    elif isinstance(draft, str) and not draft.startswith("/"):
        yield from _draft_of_the_hub(model, draft, said, f"args.{flag}")


def _draft_of_the_hub(
    model: Model, draft: str, said: Mapping[str, Any], path: str
) -> Iterator[Finding]:
    try:
        of_the_hub = isinstance(model.parsed_source(), HubSource)
    except ValueError:
        return
    if not of_the_hub:
        yield (
            path,
            f"model {shown(draft)}: a model with source='path:…' asks no hub, so its draft model"
            " has to be a directory on the host too",
        )
    elif "revision" not in said:
        yield (
            path,
            f"model {shown(draft)} has no revision, so hosts set up on different days would"
            ' serve different weights; add "revision" with a commit of the repository',
        )


def _parallelism(
    model: Model, args: Mapping[str, Any], flags: tuple[str, ...]
) -> Iterator[Finding]:
    gpus: Any = model.gpus
    if not isinstance(gpus, tuple):
        return
    if args.get("enable-dp-attention") is True:  # SGLang: dp then divides the GPUs of tp
        flags = tuple(flag for flag in flags if flag != "dp-size")
    sizes: dict[str, Any] = {flag: args.get(flag, 1) for flag in flags}
    wrong = {f: size for f, size in sizes.items() if not is_whole(size) or int(size) < 1}
    for flag, size in wrong.items():
        yield f"args.{flag}", f"must be a whole number from 1, not {shown(size)}"
    if wrong or not gpus or len(set(gpus)) != len(gpus):
        return
    if not any(flag in args for flag in flags):
        return  # the role then says the first of them, as many as there are gpus
    first, needed = flags[0], 1
    for size in sizes.values():
        needed *= int(size)
    there = len(gpus) * model.spans
    if needed != there:
        product = " x ".join(f"{flag} {size}" for flag, size in sizes.items() if flag in args)
        on = f" on each of {model.spans} hosts" if model.spans > 1 else ""
        leave = "leave these flags out" if on else f"set args={{'{first}': {len(gpus)}}}"
        yield (
            "gpus",
            f"{list(gpus)} is {_count(len(gpus))}{on}, but the engine would use {needed} "
            f"({product}); {leave} or change gpus",
        )


def _count(gpus: int) -> str:
    return f"{gpus} GPU{'s' if gpus != 1 else ''}"


def clashes(models: Iterable[Model]) -> dict[str, str]:
    """The adapters of all *models* of a fleet whose name means something else there, and why.

    Clients name what they want, and nothing else tells a model from an adapter, or the adapters of
    two models from one another.
    """
    models = list(models)
    names = {model.name for model in models}
    owners: dict[str, set[str]] = {}
    for model in models:
        for adapter in model.adapters:
            owners.setdefault(adapter, set()).add(model.name)
    found = {}
    for adapter, of in owners.items():
        if adapter in names:
            found[adapter] = f"{adapter!r} is a model of this fleet: take another name"
        elif len(of) > 1:
            found[adapter] = f"{adapter!r} is an adapter of {' and of '.join(sorted(of))}: give"
            found[adapter] += " each a name of its own"
    return found
