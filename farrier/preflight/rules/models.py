"""The model directories that the inventory names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farrier.preflight.basics import MOST_MISSING
from farrier.preflight.verdict import Code, Reason
from farrier.spec import PathSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farrier.preflight.found import Case
    from farrier.spec import Model

__all__ = ["CODES", "RULES", "model_path"]

# Needs nothing that a bare host lacks; rsync, where both sides have it, resumes.
_COPY = "tar -C {name} -cf - . | {ssh} 'sudo mkdir -p {path} && sudo tar -C {path} -xf -'"

MODEL_MISSING = Code(
    "model-missing",
    "refuse",
    "A model's directory (source='path:…') is not on the host. Copy it there, or correct source.",
    _COPY,
    "operator",
)
MODEL_INCOMPLETE = Code(
    "model-incomplete",
    "refuse",
    "A model's directory has no config.json, or lacks files that its safetensors index names: an"
    " unfinished copy, or not a model's directory.",
    _COPY,
    "operator",
)


_AGAIN = "copy it again (rsync resumes), or correct source="


def model_path(model: Model) -> str | None:
    """The directory on the host that *model* is served from, None if it is fetched."""
    source = model.parsed_source() if model.source else None
    return str(source.path) if isinstance(source, PathSource) else None


def models_are_there(case: Case) -> Iterator[Reason]:
    """Whole directories."""
    for model in case.wanted.spec.models:
        path = model_path(model)
        found = case.basics.models.get(path) if path else None
        if path is None or found is None or found.state == "ok":
            continue
        code = MODEL_INCOMPLETE
        if found.state == "no-directory":
            code, what = (
                MODEL_MISSING,
                "does not exist on the host: copy it (or rsync, which resumes), or correct source=",
            )
        elif found.state == "shards":
            more = len(found.missing) - MOST_MISSING
            names = ", ".join(found.missing[:MOST_MISSING])
            what = f"lacks {names}{f' and {more} more' if more > 0 else ''}: {_AGAIN}"
        else:
            what = f"has no config.json, so it is no model, or an unfinished copy: {_AGAIN}"
        yield code.reason(
            f"model {model.name}: {path} {what}",
            name=model.name.rpartition("/")[2],
            ssh=case.wanted.ssh,
            path=path,
        )


CODES = (MODEL_MISSING, MODEL_INCOMPLETE)
RULES = (models_are_there,)
