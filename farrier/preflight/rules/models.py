"""The model directories that the inventory names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from farrier.preflight.basics import MOST_MISSING
from farrier.preflight.verdict import Code, Reason
from farrier.spec import PathSource
from farrier.spec.check_layout import draft_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farrier.preflight.found import Case
    from farrier.spec import Model

__all__ = [
    "CODES",
    "COPY",
    "COPY_FILE",
    "RULES",
    "adapter_paths",
    "gguf_path",
    "model_path",
    "model_paths",
]

# Needs nothing that a bare host lacks; rsync, where both sides have it, resumes.
COPY = "tar -C {name} -cf - . | {ssh} 'sudo mkdir -p {path} && sudo tar -C {path} -xf -'"
COPY_FILE = "{ssh} 'sudo mkdir -p {folder} && sudo tee {path} > /dev/null' < {name}"

MODEL_MISSING = Code(
    "model-missing",
    "refuse",
    "A model's directory or file (source='path:…') is not on the host. Copy it there, or correct"
    " source.",
    "{repair}",
    "operator",
    shown="tar -C NAME -cf - . | SSH 'sudo mkdir -p PATH && sudo tar -C PATH -xf -'",
)
MODEL_INCOMPLETE = Code(
    "model-incomplete",
    "refuse",
    "A model's directory has no config.json, lacks files that its safetensors index names, or has"
    " safetensors that are cut short or none: an unfinished copy, or not a model's directory.",
    COPY,
    "operator",
)


_AGAIN = "copy it again (rsync resumes), or correct source="


def model_path(model: Model) -> str | None:
    """The directory on the host that *model* is served from, None if it is no directory there."""
    source = model.parsed_source() if model.source else None
    return str(source.path) if isinstance(source, PathSource) and not source.gguf else None


def model_paths(model: Model) -> tuple[str, ...]:
    """Every directory on the host with weights for *model*: its own, and its draft model's."""
    draft = draft_of(model) if model.engine == "vllm" else None
    return tuple(path for path in (model_path(model), draft) if path)


def gguf_path(model: Model) -> str | None:
    """The GGUF file on the host that *model* is served from, None if it is something else."""
    source = model.parsed_source() if model.source else None
    return str(source.path) if isinstance(source, PathSource) and source.gguf else None


def adapter_paths(model: Model) -> tuple[str, ...]:
    """The directories of LoRA adapters that vLLM is told to load for *model*."""
    if model.lora:
        return tuple(source.removeprefix("path:") for source in model.lora.values())
    said = model.args.get("lora-modules")
    if model.engine != "vllm" or not isinstance(said, str):
        return ()
    try:
        path = json.loads(said)["path"] if said.startswith("{") else said.partition("=")[2]
    except (ValueError, KeyError, TypeError):
        return ()
    return (path,) if isinstance(path, str) and path.startswith("/") else ()


def models_are_there(case: Case) -> Iterator[Reason]:
    """Whole directories."""
    every = [(model, path) for model in case.wanted.spec.carried for path in model_paths(model)]
    for model, path in every:
        found = case.basics.models.get(path)
        if found is None or found.state == "ok":
            continue
        if model.engine == "triton" and found.state == "no-config.json":
            continue  # its directory is a repository of models, which has none
        own = path == model_path(model)
        name = (model.name if own else path).rpartition("/")[2]
        if found.state == "no-directory":
            yield MODEL_MISSING.reason(
                f"model {model.name}: {path} does not exist on the host: copy it (or rsync, which"
                f" resumes), or correct {'source=' if own else 'speculative-config'}",
                repair=COPY.format(name=name, ssh=case.wanted.ssh, path=path),
            )
            continue
        if found.state == "shards":
            more = len(found.missing) - MOST_MISSING
            names = ", ".join(found.missing[:MOST_MISSING])
            what = f"lacks {names}{f' and {more} more' if more > 0 else ''}: {_AGAIN}"
        else:
            what = f"has no config.json, so it is no model, or an unfinished copy: {_AGAIN}"
        yield MODEL_INCOMPLETE.reason(
            f"model {model.name}: {path} {what}", name=name, ssh=case.wanted.ssh, path=path
        )


def weights_are_whole(case: Case) -> Iterator[Reason]:
    """Safetensors as long as their headers say."""
    found = case.found.weights
    for model in case.wanted.spec.carried if found else ():
        for path in model_paths(model):
            shards = found.shards if found else {}
            broken = [file for file in shards if file.rpartition("/")[0] == path]
            for file in sorted(broken)[:MOST_MISSING]:
                yield MODEL_INCOMPLETE.reason(
                    f"model {model.name}: {file} {shards[file]}: {_AGAIN}",
                    name=(model.name if path == model_path(model) else path).rpartition("/")[2],
                    ssh=case.wanted.ssh,
                    path=path,
                )


def files_are_there(case: Case) -> Iterator[Reason]:
    """GGUF files."""
    found = case.found.weights
    for model in case.wanted.spec.carried if found else ():
        path = gguf_path(model)
        file = found.ggufs.get(path) if found and path else None
        if path and file and file.size is None:
            folder, _, name = path.rpartition("/")
            copy = COPY_FILE.format(ssh=case.wanted.ssh, folder=folder, path=path, name=name)
            yield MODEL_MISSING.reason(
                f"model {model.name}: {path} does not exist on the host: copy it, or correct"
                " source=",
                repair=copy,
            )


CODES = (MODEL_MISSING, MODEL_INCOMPLETE)
RULES = (models_are_there, weights_are_whole, files_are_there)
