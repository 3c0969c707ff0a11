"""Models that their engine could not start with, by what their files on the host say."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING, Any

from farrier.preflight.rules.models import (
    COPY_FILE,
    adapter_paths,
    gguf_path,
    model_path,
    model_paths,
)
from farrier.preflight.rules.system import PYTHONS
from farrier.preflight.verdict import Code, Reason
from farrier.spec.engines import ENGINES
from farrier.weights.config import ModelConfig
from farrier.weights.known import llama_cpp_architectures, vllm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farrier.preflight.found import Case
    from farrier.spec import Model
    from farrier.weights.known import Vllm

__all__ = ["CODES", "RULES", "configs", "known_of"]

CONFIG_BROKEN = Code(
    "model-config-broken",
    "refuse",
    "A model's config.json, or an adapter's adapter_config.json, cannot be read: the copy was"
    " damaged, or it is another file (an error page, a pointer of git-lfs).",
    "{ssh} {look} {file}",
    "operator",
    shown="SSH head -c 200 FILE",
)
ARCHITECTURE = Code(
    "model-architecture",
    "refuse",
    "The engine does not know the model's architecture. Where Transformers knows it, or the model"
    " brings code of its own, vLLM may serve it all the same: a warning then.",
    'models: {model} needs engine="custom" with a program that serves {architecture}, or a'
    " vllm_version that does",
    "inventory",
)
HEADS = Code(
    "model-heads",
    "refuse",
    "The model's attention heads cannot be divided among so many GPUs (tensor parallelism).",
    "models: {model} takes {flag} {sizes}",
    "inventory",
)
CONTEXT = Code(
    "model-context",
    "refuse",
    "The inventory asks for a longer context than the model was made for.",
    'models: {model} args={{"{flag}": {most}}}',
    "inventory",
)
GGUF_BROKEN = Code(
    "gguf-broken",
    "refuse",
    "A GGUF file is cut short (an unfinished copy), or is none.",
    COPY_FILE,
    "operator",
)
GGUF_ARCHITECTURE = Code(
    "gguf-architecture",
    "warn",
    "A GGUF file has an architecture that llama.cpp did not know when Farrier was made: a newer"
    " program may.",
    "{ssh} {program} --version",
    "operator",
)

UNPINNED = Code(
    "engine-unpinned",
    "refuse",
    "The inventory does not say which tarball of the engine is meant: its SHA-256 is missing, or is"
    " none.",
    '{thing}_sha256 = "…"',
    "inventory",
)
UNLOCKED = Code(
    "engine-unlocked",
    "refuse",
    "There is no lock of the engine's wheels, so hosts set up on different days would get different"
    " ones: the role has none of its own, or of another version, or the directory that `…_locks`"
    " names has none for this accelerator. How a lock is made: docs/engines.md, docs/layouts.md.",
    '{thing}_locks = "…"',
    "inventory",
)
OTHER_PYTHON = Code(
    "engine-python",
    "refuse",
    "The engine's wheels are locked for other Pythons than the system's own. Where there are wheels"
    " for it, a lock of yours may name them; else another system has to be installed.",
    '{thing}_locks = "…"',
    "inventory",
)
LONGER = {
    "vllm": ("max-model-len", "VLLM_ALLOW_LONG_MAX_MODEL_LEN"),
    "sglang": ("context-length", "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN"),
}
"""The flag of an engine for the context's length, and the variable with which it takes any."""
_OVERRIDES = frozenset(
    {"hf-overrides", "hf-config-path", "config-format", "model-impl", "json-model-override-args"}
)
"""Flags of vLLM and SGLang after which the configuration is another than the file's."""


def configs(case: Case, engine: str) -> Iterator[tuple[Model, ModelConfig]]:
    """Each model of *engine* with what its config.json says."""
    found = case.found.weights
    for model in case.wanted.spec.carried if found else ():
        config = found.configs.get(model_path(model) or "") if found else None
        own = ENGINES[engine].by_command(model.command)
        if model.engine == engine and isinstance(config, ModelConfig) and not own:
            yield model, config


def known_of(case: Case) -> Vllm | None:
    """What the version of vLLM that will be installed knows; None where that was not looked up."""
    return vllm(case.wanted.version_of("vllm"))


def readable(case: Case) -> Iterator[Reason]:
    """Configurations that are JSON."""
    found = case.found.weights
    for model in case.wanted.spec.carried if found else ():
        configs, adapters = (found.configs, found.adapters) if found else ({}, {})
        files: list[tuple[str, object]] = [
            *((f"{one}/config.json", configs.get(one)) for one in model_paths(model)),
            *((f"{one}/adapter_config.json", adapters.get(one)) for one in adapter_paths(model)),
        ]
        for file, said in files:
            if isinstance(said, str):
                yield CONFIG_BROKEN.reason(
                    f"model {model.name}: {file} {said}: copy it again, or correct the inventory",
                    ssh=case.wanted.ssh,
                    look="head -c 200" if said.startswith("is n") else "ls -ld",
                    file=file,
                )


def architectures(case: Case) -> Iterator[Reason]:
    """Architectures that this version of vLLM knows."""
    known = known_of(case)
    for model, config in configs(case, "vllm"):
        names = config.architectures
        if not known or not names or _OVERRIDES & model.args.keys():
            continue
        if known.architectures & set(names):
            continue
        otherwise = config.remote_code or config.model_type in known.model_types
        what = f"vLLM {case.wanted.version_of('vllm')} has no {', '.join(names)}"
        also = (
            "; it tries Transformers', which may be slow or fail"
            if otherwise
            else f", and Transformers no type {config.model_type!r}"
        )
        yield ARCHITECTURE.reason(
            f"model {model.name}: {what}{also}",
            severity="warn" if otherwise else "refuse",
            model=model.name,
            architecture=names[0],
        )


def _parallel(model: Model, cuda: bool) -> int:
    """How many GPUs share each layer."""
    flags = ENGINES[model.engine].sizes
    given: Any = model.args.get(flags[0])
    if isinstance(given, int) and given > 0:
        return given
    return 1 if any(flag in model.args for flag in flags) or not cuda else len(model.gpus)


def heads(case: Case) -> Iterator[Reason]:
    """Heads that can be divided among the GPUs."""
    for engine in (one for one in ENGINES.values() if one.sizes):
        for model, config in configs(case, engine.name):
            size = _parallel(model, case.wanted.cuda)
            if config.heads is None or _fits(config, size):
                continue
            sizes = [str(one) for one in range(1, 2 * size) if _fits(config, one)]
            kept = f" and {config.kv_heads} of keys and values" if config.kv_heads else ""
            yield HEADS.reason(
                f"model {model.name}: {config.heads} attention heads{kept} cannot be divided among"
                f" {size} GPUs",
                model=model.name,
                flag=engine.sizes[0],
                sizes=" or ".join(sizes),
            )


def _fits(config: ModelConfig, size: int) -> bool:
    whole = config.heads is None or config.heads % size == 0
    return whole and (
        config.kv_heads is None or gcd(config.kv_heads, size) in {config.kv_heads, size}
    )


def context(case: Case) -> Iterator[Reason]:
    """A context that the model has."""
    for engine, (flag, allows) in LONGER.items():
        for model, config in configs(case, engine):
            asked: Any = model.args.get(flag)
            if not isinstance(asked, int) or config.context is None or asked <= config.context:
                continue
            if model.env.get(allows) == "1" or (_OVERRIDES | {"rope-scaling"}) & model.args.keys():
                continue
            yield CONTEXT.reason(
                f"model {model.name}: {flag} {asked}, and the model has a context of"
                f" {config.context} tokens",
                model=model.name,
                flag=flag,
                most=config.context,
            )


def ggufs(case: Case) -> Iterator[Reason]:
    """GGUF files that are there, whole, and of a known architecture."""
    found = case.found.weights
    for model in case.wanted.spec.carried if found else ():
        path = gguf_path(model)
        file = found.ggufs.get(path) if found and path else None
        if path is None or file is None or file.size is None:
            continue
        if file.problem:
            folder, _, name = path.rpartition("/")
            yield GGUF_BROKEN.reason(
                f"model {model.name}: {path} {file.problem}",
                name=name,
                ssh=case.wanted.ssh,
                folder=folder,
                path=path,
            )
        elif (
            model.engine == "llama_cpp"
            and file.head
            and file.head.architecture
            and file.head.architecture not in llama_cpp_architectures()
        ):
            yield GGUF_ARCHITECTURE.reason(
                f"model {model.name}: {path} has the architecture {file.head.architecture!r}",
                ssh=case.wanted.ssh,
                program=(model.command or ("llama-server",))[0],
            )


def pinned(case: Case) -> Iterator[Reason]:
    """Programs that are known by their hash."""
    for program in case.wanted.programs:
        if not program.pinned:
            thing = program.name.partition(" ")[0]
            yield UNPINNED.reason(
                f"{program.name}: {thing}_sha256 is not 64 hexadecimal digits; its project"
                " publishes them with each release",
                thing=thing,
            )


def locked(case: Case) -> Iterator[Reason]:
    """Programs made of wheels whose lock is there."""
    for program in case.wanted.programs:
        if not program.locked:
            thing = program.name.partition(" ")[0]
            yield UNLOCKED.reason(f"{program.name} has no lock of its wheels", thing=thing)
        elif program.other:
            thing = program.name.partition(" ")[0]
            yield UNLOCKED.reason(
                f"{program.name} has no lock of its wheels: that which there is locks"
                f" {program.other}",
                thing=thing,
            )


def for_its_python(case: Case) -> Iterator[Reason]:
    """Programs made of wheels whose lock is for the host's Python, unless they are there."""
    python = PYTHONS.get(case.basics.system)
    for program in case.wanted.programs if python else ():
        if not program.pythons or program.path in case.basics.complete:
            continue
        if python not in program.pythons:
            yield OTHER_PYTHON.reason(
                f"{program.name} has no lock for Python {python}, which {case.basics.system} has"
                f" (only for {', '.join(program.pythons)})",
                thing=program.name.partition(" ")[0],
            )


CODES = (
    UNPINNED,
    UNLOCKED,
    OTHER_PYTHON,
    CONFIG_BROKEN,
    ARCHITECTURE,
    HEADS,
    CONTEXT,
    GGUF_BROKEN,
    GGUF_ARCHITECTURE,
)
RULES = (pinned, locked, for_its_python, readable, architectures, heads, context, ggufs)
