"""Jinja2 templates of a role, rendered on the operator's side; a missing variable is an error."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

__all__ = ["render"]


@cache
def _environment(directory: Path) -> Environment:
    return Environment(  # noqa: S701 - what is rendered is configuration, not HTML
        loader=FileSystemLoader(directory),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: Path, **values: Any) -> str:
    """The file *template* with *values* filled in. Raises jinja2's errors for a missing one."""
    return _environment(template.parent).get_template(template.name).render(**values)
