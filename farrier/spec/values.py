"""Values of an inventory: what they are, and how a message shows them."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from farrier.spec.model import is_secret

__all__ = ["did_you_mean", "is_label", "is_served_name", "is_whole", "shown"]

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SERVED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


def is_label(value: object) -> bool:
    """Whether *value* is a DNS label in lower case."""
    return isinstance(value, str) and _LABEL.fullmatch(value) is not None


def is_served_name(value: object) -> bool:
    """Whether clients can ask for a model by the name *value*."""
    return isinstance(value, str) and _SERVED_NAME.fullmatch(value) is not None


def is_whole(value: object) -> bool:
    """Whether *value* is an int; ``True`` is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def did_you_mean(word: object, known: Any, cutoff: float = 0.6) -> str:
    """``; did you mean 'x'?`` or nothing."""
    close = (
        get_close_matches(word, list(known), n=1, cutoff=cutoff) if isinstance(word, str) else []
    )
    return f"; did you mean {close[0]!r}?" if close else ""


def shown(value: object) -> str:
    """*value* for a message; only short texts and numbers, anything else by its type."""
    if value is None or isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str) and len(value) <= 64 and not is_secret("", value):
        return repr(value)
    return f"a {type(value).__name__}"
