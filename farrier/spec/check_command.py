"""What can be wrong with a model's ``command``, the argv of its engine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from farrier.spec.engines import Engine
from farrier.spec.model import Model, is_secret, is_secret_name
from farrier.spec.problems import Finding

__all__ = ["NO_SECRETS", "check_command"]

NO_SECRETS = (
    "a secret must not stand in the inventory: units, their environment and their command lines "
    "can be read by every user of the host"
)

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_PLACEHOLDERS = ("host", "port", "model", "path")
_EVERYWHERE = re.compile(r"(^|[=/@])(0\.0\.0\.0|\[?::\]?)(:|$)")
_CUSTOM_EXAMPLE = ("/opt/x/serve", "{port}")


def check_command(model: Model, engine: Engine) -> Iterator[Finding]:
    """Every problem of the ``command`` of *model*, which *engine* serves."""
    command: Any = model.command
    if not engine.by_command(command):
        if command is not None:
            yield "command", f"engine {engine.name!r} has its own; only 'custom' takes one"
        return
    if not isinstance(command, tuple) or not command:
        example = list(engine.example or _CUSTOM_EXAMPLE)
        yield "command", f"engine {engine.name!r} needs its argv as a list, e.g. {example}"
        return
    if not all(isinstance(word, str) and word.isprintable() for word in command):
        yield "command", "must be a list of texts without line breaks"
        return
    if not command[0].startswith("/"):
        where = "in its image" if model.image or model.image_archive else "on the host"
        yield "command", f"{command[0]!r}: the program needs its absolute path {where}"
    yield from _words(model, command)
    if not any("{port}" in word or str(model.port) in word for word in command):
        yield "command", "says nowhere on which port to listen: put {port} where it belongs"
    if engine.example:
        yield from _known_engine(engine, command)


def _words(model: Model, command: tuple[str, ...]) -> Iterator[Finding]:
    for word in command:
        if is_secret("", word) or (word.startswith("-") and is_secret_name(word.split("=")[0])):
            yield "command", NO_SECRETS
        for name in _PLACEHOLDER.findall(word):
            if name not in _PLACEHOLDERS:
                known = ", ".join(f"{{{known}}}" for known in _PLACEHOLDERS)
                yield "command", f"unknown placeholder {{{name}}}; known: {known}"
    has_path = str(model.source).startswith("path:")
    if not has_path and any("{path}" in word for word in command):
        yield "command", "has {path}, which needs source='path:/…'"


def _known_engine(engine: Engine, command: tuple[str, ...]) -> Iterator[Finding]:
    if any(map(_EVERYWHERE.search, command)) or not any(
        "{host}" in word or "127.0.0.1" in word for word in command
    ):
        yield (
            "command",
            f"{engine.name} has to listen on 127.0.0.1 only, nginx is in front of it: put {{host}}"
            f" where its address belongs, as in {list(engine.example)}",
        )
    for wanted, why in engine.wants.items():
        if wanted not in command:
            yield "command", f"lacks {wanted}: {why}"
