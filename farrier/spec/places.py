"""Where a field was written: the line of a keyword, an assignment or a host's dict entry.

Only for messages. A file that cannot be read or parsed gives a place without a line, never an
error.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from farrier.spec.problems import Place

__all__ = ["argument_place", "assignment_place", "host_entry_place"]


def argument_place(call: Place, field: str) -> Place:
    """The line of the argument *field* (``port``, ``args.host``) of the call at *call*."""
    keyword, _, key = field.partition(".")
    for node in ast.walk(_tree(call.file)):
        if not isinstance(node, ast.Call) or node.lineno != call.line:
            continue
        for argument in node.keywords:
            if argument.arg == keyword:
                return Place(call.file, _entry_line(argument.value, key) or argument.lineno)
    return call


def assignment_place(file: str, name: str) -> Place | None:
    """The last assignment to *name* at the top of *file*, or None if there is none."""
    found = None
    for node in _tree(file).body:
        if _assigned(node) == name:
            found = Place(file, node.lineno)
    return found


def host_entry_place(file: str, host: str, field: str) -> Place | None:
    """The line of *field* in a ``("host", {…})`` of *file*, else that of the host's entry."""
    entry = None
    for node in ast.walk(_tree(file)):
        match node:
            case ast.Tuple(elts=[ast.Constant(value=name), data]) if name == host:
                entry = entry or Place(file, node.lineno)
                if line := _entry_line(data, field):
                    return Place(file, line)
            case ast.Constant(value=name) if name == host:
                entry = entry or Place(file, node.lineno)
            case _:
                pass
    return entry


def group_entry_place(file: str, group: str, field: str) -> Place | None:
    """The line of *field* in a ``group = ([…], {…})`` of *file*."""
    for node in _tree(file).body:
        if _assigned(node) != group or not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        match node.value:
            case ast.Tuple(elts=[_, data]):
                if line := _entry_line(data, field):
                    return Place(file, line)
            case _:
                pass
    return None


def _assigned(node: ast.stmt) -> str | None:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
        case _:
            return None


def _entry_line(node: ast.expr, key: str) -> int | None:
    entries: Iterator[tuple[str | None, int]]
    match node:
        case ast.Dict(keys=keys):
            entries = (
                (str(item.value), item.lineno) for item in keys if isinstance(item, ast.Constant)
            )
        case ast.Call(func=ast.Name(id="dict"), keywords=keywords):
            entries = ((item.arg, item.lineno) for item in keywords)
        case _:
            return None
    return next((line for name, line in entries if name == key), None)


@cache
def _tree(file: str) -> ast.Module:
    try:
        return ast.parse(Path(file).read_bytes(), filename=file)
    except (OSError, SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])
