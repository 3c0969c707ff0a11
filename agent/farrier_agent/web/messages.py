"""What is asked and answered over HTTP, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

__all__ = ["JSON", "Answer", "Request", "json_answer"]

JSON = "application/json"


class Request(NamedTuple):
    """One request, without a body: nothing here takes one.

    ``path`` is decoded, ``query`` as it came. The names in ``headers`` are lower case; of a header
    that came several times it has all values, joined with commas (RFC 9110, 5.3). ``peer`` is the
    client's address.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = {}
    peer: str = ""


class Answer(NamedTuple):
    """One answer. ``headers`` are those besides the type and the length of ``body``."""

    code: int
    kind: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def json_answer(code: int, value: object, *headers: tuple[str, str]) -> Answer:
    """*value* as JSON."""
    return Answer(code, JSON, msgspec.json.encode(value) + b"\n", headers)
