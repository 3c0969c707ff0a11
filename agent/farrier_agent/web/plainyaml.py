"""YAML as the web configuration needs it: mappings, lists, strings. Nothing is guessed.

PyYAML is imported when a file is read: a host without a web configuration does without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

__all__ = ["MAX_BYTES", "YamlError", "loads"]

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16


class YamlError(ValueError):
    """Text cannot be read as such YAML; the message says where and why."""


def loads(text: str) -> Any:
    """*text* as dict, list, str and None; None for an empty file.

    Every scalar is the string that is written: a user may be called ``yes`` or ``0123``. Only what
    is left empty (or says ``null`` or ``~``) is None. A key that comes twice, an alias, a tag and
    a second document are refused. Raises :class:`YamlError`.
    """
    import yaml  # noqa: PLC0415 - see above

    if len(text) > MAX_BYTES:
        raise YamlError(f"more than {MAX_BYTES // 1024} KiB")
    try:
        _check(text)
        node = yaml.compose(text, Loader=yaml.BaseLoader)
        return None if node is None else _value(node)
    except yaml.YAMLError as error:
        raise YamlError(_words(error)) from None
    except ValueError as error:
        # PyYAML lets it out for an escape that is no character
        raise YamlError(str(error)) from None


def _check(text: str) -> None:
    """Refuse what a tree of nodes would not show, and what is too deep to make one."""
    import yaml  # noqa: PLC0415 - see above

    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        if isinstance(event, yaml.AliasEvent):
            raise YamlError(f"{_place(event.start_mark)}: aliases (*name) are not followed")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise YamlError(f"{_place(event.start_mark)}: a second document")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise YamlError(f"{_place(event.start_mark)}: nested too deeply")
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if getattr(event, "tag", None):
            raise YamlError(f"{_place(event.start_mark)}: tags (!name) are not known")


def _value(node: yaml.Node) -> Any:
    import yaml  # noqa: PLC0415 - see above

    if isinstance(node, yaml.ScalarNode):
        empty = node.style is None and node.value in {"", "~", "null", "Null", "NULL"}
        return None if empty else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_value(one) for one in node.value]
    found: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise YamlError(f"{_place(key.start_mark)}: a key is a list or a mapping")
        if key.value in found:
            raise YamlError(f"{_place(key.start_mark)}: {key.value!r} is there twice")
        found[key.value] = _value(value)
    return found


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _words(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
    # a mark's snippet would show the file, and with it what is secret, in the journal
    return f"{_place(mark)}: {problem}" if mark else str(problem)
