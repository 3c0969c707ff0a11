"""Which form of ``/metrics`` a client wants. Pure functions of what it says.

Prometheus says it in ``Accept``, with a quality for each form and newer forms first; what is not
known here is passed over, and the oldest text format is answered where nothing fits, as all
exporters do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import parse_qsl

from farrier_agent.metrics.family import Format

__all__ = ["SelectionError", "form", "selection", "takes_gzip"]

_MEDIA: dict[Format, tuple[str, str]] = {
    "text": ("text/plain", "0.0.4"),
    "openmetrics": ("application/openmetrics-text", "1.0.0"),
}
MAX_RANGES = 32
MAX_FIELDS = 64


class SelectionError(ValueError):
    """``collect[]`` or ``exclude[]`` cannot be followed; the message says why."""


class _Range(NamedTuple):
    value: str
    parameters: dict[str, str]
    quality: float


def _ranges(header: str) -> Iterator[_Range]:
    for part in header.split(",")[:MAX_RANGES]:
        value, *rest = (word.strip() for word in part.split(";"))
        parameters = {}
        for word in rest:
            name, _, said = word.partition("=")
            parameters[name.strip().lower()] = said.strip().strip('"')
        if value:
            yield _Range(value.lower(), parameters, _quality(parameters.pop("q", "1")))


def _quality(text: str) -> float:
    """RFC 9110, 12.4.2: 0 to 1. What cannot be read is not wanted."""
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0


def form(accept: str | None) -> Format:
    """The form that *accept*, a header ``Accept``, likes best.

    The most specific range decides on a form's quality. Of equal ones the form wins that is named
    more exactly, then the text format.
    """
    ranges = list(_ranges(accept or ""))
    best: Format = "text"
    standing = (0.0, 0)
    for one in _MEDIA:
        liking = _liking(one, ranges)
        if liking > standing:
            best, standing = one, liking
    return best


def _liking(one: Format, ranges: list[_Range]) -> tuple[float, int]:
    """The quality of *one* and how exactly it was named."""
    media, version = _MEDIA[one]
    exactness = {"*/*": 1, media.partition("/")[0] + "/*": 2, media: 3}
    found = (0, 0.0)
    for said in ranges:
        wanted = said.parameters.get("version")
        if wanted not in {None, version} or said.value not in exactness:
            continue
        found = max(found, (exactness[said.value] + (wanted is not None), said.quality))
    return (found[1], found[0]) if found[1] else (0.0, 0)


def takes_gzip(accept_encoding: str | None) -> bool:
    """Whether a client that says *accept_encoding* takes gzip."""
    said = {one.value: one.quality for one in _ranges(accept_encoding or "")}
    return said.get("gzip", said.get("*", 0.0)) > 0


def selection(query: str, known: frozenset[str]) -> frozenset[str] | None:
    """The collectors that *query* wants, as node_exporter reads it; None: all of them.

    Raises :class:`SelectionError` for a collector that is not *known*, and for both of
    ``collect[]`` and ``exclude[]``.
    """
    if "%5" not in query and "[" not in query:
        return None
    try:
        fields = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise SelectionError(f"more than {MAX_FIELDS} fields") from None
    collect = frozenset(value for name, value in fields if name == "collect[]")
    exclude = frozenset(value for name, value in fields if name == "exclude[]")
    if collect and exclude:
        raise SelectionError("collect[] and exclude[] cannot be combined")
    if strange := sorted((collect | exclude) - known):
        raise SelectionError(f"no such collector: {', '.join(strange)}")
    if exclude:
        return known - exclude
    return collect or None
