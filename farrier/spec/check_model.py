"""What can be wrong with one model, whatever else its host serves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from farrier.spec.check_command import NO_SECRETS, check_command
from farrier.spec.check_image import check_image
from farrier.spec.check_layout import check_layout
from farrier.spec.engines import ENGINES, RESERVED_ENV, Engine
from farrier.spec.model import (
    HubSource,
    Model,
    OllamaSource,
    PathSource,
    is_secret,
    parse_source,
)
from farrier.spec.problems import Finding
from farrier.spec.values import did_you_mean, is_label, is_served_name, is_whole, shown

__all__ = [
    "Finding",
    "check_model",
    "did_you_mean",
    "is_label",
    "is_served_name",
    "is_whole",
    "shown",
]

FIELDS = (
    "name",
    "engine",
    "source",
    "gpus",
    "port",
    "args",
    "lora",
    "env",
    "replica",
    "start_timeout",
    "command",
    "image",
    "image_archive",
    "hosts",
    "master_port",
)
PORTS = range(1024, 65536)

_FLAG = re.compile(r"[a-z0-9][a-z0-9.-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LABEL_RULE = "lower-case letters, digits and '-', at most 63, a letter or digit at both ends"


def check_model(model: Model, accelerator: str) -> Iterator[Finding]:
    """Every problem of *model* on a host with *accelerator* (``cuda`` or ``cpu``)."""
    for name in model.unknown:
        yield name, f"Model has no field {name!r}{did_you_mean(name, FIELDS)}"
    yield from _names(model)
    if not is_whole(model.port):
        yield "port", f"must be a whole number, not {shown(model.port)}"
    elif model.port not in PORTS:
        yield "port", f"{model.port} is not a port from {PORTS.start} to {PORTS.stop - 1}"
    timeout = model.start_timeout
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        yield "start_timeout", f"must be a number of seconds above 0, not {shown(timeout)}"
    yield from _gpus(model, accelerator)
    engine = ENGINES.get(model.engine) if isinstance(model.engine, str) else None
    yield from _environment(model.env, engine.reserved_env if engine else {})
    if engine is None:
        yield (
            "engine",
            f"unknown engine {shown(model.engine)}{did_you_mean(model.engine, ENGINES)} "
            f"Known: {', '.join(ENGINES)}",
        )
        return
    if engine.needs_gpus and accelerator == "cpu":
        yield "engine", f"{engine.name!r} needs GPUs, and the host's accelerator is 'cpu'"
    if engine.one_gpu and isinstance(model.gpus, tuple) and len(model.gpus) > 1:
        yield "gpus", f"{list(model.gpus)}: engine {engine.name!r} takes one GPU"
    if model.source or engine.needs_source:
        yield from _source(model, engine)
    yield from check_command(model, engine)
    yield from check_image(model, engine)
    yield from _args(model, engine)
    yield from check_layout(model, engine, accelerator)


def _source(model: Model, engine: Engine) -> Iterator[Finding]:
    try:
        source = parse_source(model.source)
    except ValueError as error:
        yield "source", str(error)
        return
    kind = "directory"
    if isinstance(source, OllamaSource):
        kind = "ollama"
    elif isinstance(source, HubSource):
        kind = "hub"
    elif source.gguf:
        kind = "gguf"
    if kind in engine.takes or (kind != "ollama" and engine.name == "custom"):
        yield from _own_name(model, engine, source)
        return
    if kind in {"gguf", "ollama"}:
        takers = ", ".join(one.name for one in ENGINES.values() if kind in one.takes)
        what = "no GGUF file" if kind == "gguf" else "no model of Ollama's library"
        yield "source", f"engine {engine.name!r} takes {what}; engines that do: {takers}"
    else:
        also = " or ollama:NAME:TAG@DIGEST" if "ollama" in engine.takes else ""
        yield (
            "source",
            f"engine {engine.name!r} takes a GGUF file: write path:/srv/models/NAME.gguf{also}",
        )


def _own_name(
    model: Model, engine: Engine, source: PathSource | HubSource | OllamaSource
) -> Iterator[Finding]:
    """Where an engine that names its model itself would name it otherwise."""
    if not engine.own_name or engine.by_command(model.command):
        return
    own = ""
    if isinstance(source, PathSource):
        own = source.path.name
    elif isinstance(source, HubSource):
        own = source.repo
    if own != model.name:
        yield (
            "name",
            f"engine {engine.name!r} tells its model's name itself, after its source: {own!r}."
            f" Name it so, or give the directory (or a link to it) the name {shown(model.name)}",
        )


def _names(model: Model) -> Iterator[Finding]:
    rule = f"is not a DNS label ({LABEL_RULE})"
    if not isinstance(model.name, str) or not model.name:
        yield "name", f"must be text and not empty, not {shown(model.name)}"
    elif model.replica == model.name and not is_label(model.name):
        yield (
            "name",
            f"{model.name!r} {rule}, and the unit is named after it; if clients have to ask for "
            f"this name, add replica={_as_label(model.name)!r} for the unit",
        )
    elif not is_served_name(model.name):
        yield "name", f"{model.name!r} has other characters than letters, digits and . _ : / -"
    if model.replica != model.name and not is_label(model.replica):
        yield "replica", f"{shown(model.replica)} {rule}"


def _gpus(model: Model, accelerator: str) -> Iterator[Finding]:
    gpus: Any = model.gpus
    if not isinstance(gpus, tuple):
        yield "gpus", f"must be a list of GPU indices such as [0, 1], not {shown(gpus)}"
    elif not all(is_whole(gpu) and gpu >= 0 for gpu in gpus):
        yield "gpus", f"must hold whole numbers from 0, as nvidia-smi counts, not {list(gpus)!r}"
    elif len(set(gpus)) != len(gpus):
        yield "gpus", f"{list(gpus)} names a GPU twice"
    elif accelerator == "cpu" and gpus:
        yield "gpus", f"{list(gpus)}, but the host's accelerator is 'cpu': leave gpus out"
    elif accelerator == "cuda" and not gpus:
        yield (
            "gpus",
            "missing: say which GPUs it gets, e.g. gpus=[0]; "
            "a host without GPUs says accelerator = 'cpu'",
        )


def _environment(env: object, engines: Mapping[str, str]) -> Iterator[Finding]:
    if not isinstance(env, Mapping):
        yield "env", f"must be a dict such as {{'NAME': 'value'}}, not {shown(env)}"
        return
    for name, value in env.items():
        path = f"env.{name}"
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            yield "env", f"{shown(name)} is not the name of an environment variable"
        elif is_secret(name, value):
            yield path, NO_SECRETS
        elif why := RESERVED_ENV.get(name) or engines.get(name):
            yield path, f"Farrier sets this itself: {why}"
        elif not isinstance(value, str):
            yield path, f"must be text, not {shown(value)}: write {str(value)!r}"
        elif not value.isprintable():
            yield path, "has characters that cannot be printed (a line break?)"


def _args(model: Model, engine: Engine) -> Iterator[Finding]:
    args: Any = model.args
    if not isinstance(args, Mapping):
        yield "args", f"must be a dict such as {{'max-model-len': 8192}}, not {shown(args)}"
        return
    if args and engine.by_command(model.command):
        yield "args", f"engine {engine.name!r} takes its flags in command"
        return
    if args and not engine.takes_args:
        yield "args", f"engine {engine.name!r} has no flags: its settings are variables in env"
        return
    guarded = (*engine.reserved, *engine.sizes)
    for flag, value in args.items():
        if not isinstance(flag, str) or not _FLAG.fullmatch(flag):
            bare = str(flag).lstrip("-").replace("_", "-").lower()
            hint = f"; write it as {bare!r}" if _FLAG.fullmatch(bare) else ""
            yield "args", f"{shown(flag)} is not a flag's name without its dashes{hint}"
            continue
        path = f"args.{flag}"
        longer = [] if flag in guarded else [name for name in guarded if name.startswith(flag)]
        if flag in engine.reserved:
            yield path, f"Farrier sets this itself: {engine.reserved[flag]}"
        elif is_secret(flag, value):
            yield path, NO_SECRETS
        elif longer:
            # argparse takes any unambiguous beginning of a flag for the flag
            yield path, f"is the beginning of --{longer[0]}; flags are written in full"
        elif value is False:
            yield path, "False has no meaning for a flag: leave it out, or use its no-… form"
        elif f"no-{flag}" in args:
            yield path, f"contradicts args.no-{flag}: leave one of them out"
        elif not isinstance(value, str | int | float):
            yield (
                path,
                f"must be text (JSON too), a number or True, not {shown(value)}",
            )
        elif isinstance(value, str) and not value.isprintable():
            yield path, "has characters that cannot be printed (a line break?)"


def _as_label(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].rstrip("-") or "model"
