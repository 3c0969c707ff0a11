"""LoRA adapters that vLLM could not start with, or that were made for another model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from farrier.preflight.rules.models import COPY, adapter_paths
from farrier.preflight.verdict import Code, Reason
from farrier.spec import HubSource, PathSource
from farrier.spec.check_layout import LORA_RANKS
from farrier.weights.adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farrier.preflight.found import Case
    from farrier.spec import Model

__all__ = ["CODES", "RULES"]

LORA_MISSING = Code(
    "lora-missing",
    "refuse",
    "A LoRA adapter's directory is not on the host, or has no adapter_config.json.",
    COPY,
    "operator",
)
LORA_RANK = Code(
    "lora-rank",
    "refuse",
    "A LoRA adapter has a higher rank than the engine is told to make room for.",
    'models: {model} args={{"max-lora-rank": {rank}}}',
    "inventory",
)
LORA_KIND = Code(
    "lora-unsupported",
    "refuse",
    "A LoRA adapter is of a kind that vLLM does not take, so the engine would end at once.",
    "models: {model} without the adapter {path}, or with one that is plain LoRA",
    "inventory",
)
LORA_BASE = Code(
    "lora-base",
    "warn",
    "A LoRA adapter says that it was made for another model. vLLM does not look: where only the"
    " sizes are the same it loads it, and answers nonsense.",
    "{ssh} grep base_model_name_or_path {path}/adapter_config.json",
    "operator",
)

_DEFAULT_RANK = 16
_HIGHEST = LORA_RANKS[-1]


def _adapters(case: Case) -> Iterator[tuple[Model, str, Adapter]]:
    """Each adapter of each model that could be read, with its directory."""
    found = case.found.weights
    for model in case.wanted.spec.carried if found else ():
        for path in adapter_paths(model):
            adapter = found.adapters.get(path) if found else None
            if isinstance(adapter, Adapter):
                yield model, path, adapter


def there(case: Case) -> Iterator[Reason]:
    """Adapters that are on the host."""
    found = case.found.weights
    for model in case.wanted.spec.carried if found else ():
        for path in adapter_paths(model):
            if found and path not in found.adapters:
                yield LORA_MISSING.reason(
                    f"model {model.name}: {path}/adapter_config.json does not exist on the host:"
                    " copy the adapter, or correct lora=",
                    name=path.rpartition("/")[2],
                    ssh=case.wanted.ssh,
                    path=path,
                )


def ranks(case: Case) -> Iterator[Reason]:
    """Adapters that fit into the room that the engine makes for them."""
    for model, path, adapter in _adapters(case):
        room: Any = model.args.get("max-lora-rank", _DEFAULT_RANK)
        if adapter.rank is None or not isinstance(room, int):
            continue
        if not room < adapter.rank <= _HIGHEST:
            continue
        yield LORA_RANK.reason(
            f"model {model.name}: the adapter {path} has rank {adapter.rank}, the engine has room"
            f" for {room}",
            model=model.name,
            rank=next(one for one in LORA_RANKS if one >= adapter.rank),
        )


def kinds(case: Case) -> Iterator[Reason]:
    """Adapters of a kind that the engine takes."""
    for model, path, adapter in _adapters(case):
        why = adapter.unsupported
        if adapter.rank is not None and adapter.rank > _HIGHEST:
            why = f"has rank {adapter.rank}, and vLLM has room for {_HIGHEST} at the most"
        if why:
            yield LORA_KIND.reason(
                f"model {model.name}: the adapter {path} {why}", model=model.name, path=path
            )


def bases(case: Case) -> Iterator[Reason]:
    """Adapters of the model that they were made for, as far as names tell."""
    for model, path, adapter in _adapters(case):
        made_for = _last(adapter.base)
        if made_for and made_for not in _names(model):
            yield LORA_BASE.reason(
                f"model {model.name}: the adapter {path} was made for {adapter.base[:128]!r}",
                ssh=case.wanted.ssh,
                path=path,
            )


def _names(model: Model) -> set[str]:
    """What the model may have been called by whoever made an adapter for it."""
    source = model.parsed_source()
    named = {_last(model.name), model.replica.lower()}
    if isinstance(source, PathSource):
        named |= {part.lower() for part in source.path.parts}
    elif isinstance(source, HubSource):
        named.add(_last(source.repo))
    return named


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()


CODES = (LORA_MISSING, LORA_RANK, LORA_KIND, LORA_BASE)
RULES = (there, ranks, kinds, bases)
