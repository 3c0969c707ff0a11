"""Reads single families out of Prometheus' text, without a library: some engines give megabytes."""

from __future__ import annotations

import math
from collections.abc import Collection

__all__ = ["sums"]


def sums(text: bytes, names: Collection[str]) -> dict[str, float]:
    """The sum over all labels of each sample called one of *names* in *text*.

    What is not there, or whose value is no finite number, is absent.
    """
    wanted = {name.encode(): name for name in names}
    found: dict[str, float] = {}
    broken: set[str] = set()
    for line in text.splitlines():
        head, brace, _ = line.partition(b"{")
        name = wanted.get(head if brace else line.partition(b" ")[0])
        if name is None:
            continue
        # what follows the labels, or without them the name: the value, perhaps a timestamp
        rest = line[line.rindex(b"}") + 1 :] if brace and b"}" in line else line[len(name) :]
        value = _number(rest.split())
        if value is None:
            broken.add(name)
        else:
            found[name] = found.get(name, 0.0) + value
    return {name: value for name, value in found.items() if name not in broken}


def _number(words: list[bytes]) -> float | None:
    try:
        value = float(words[0]) if words else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
