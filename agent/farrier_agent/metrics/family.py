"""What a family of metrics is, and how its samples are written. No I/O here.

A family's samples are written alike in Prometheus' text format 0.0.4 and in OpenMetrics 1.0; only
the lines before them differ. So they are written once for both, with each set of labels escaped
once for as long as it is in use: prometheus_client's own writers take 12 and 17 ms for the page of
a host with eight GPUs, which is more than a tick of the agent may cost in all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

__all__ = [
    "ALWAYS",
    "Family",
    "Format",
    "Kind",
    "Sample",
    "family",
    "header",
    "lines",
    "number",
    "one_hot",
]

Format = Literal["text", "openmetrics"]
Kind = Literal["counter", "gauge", "histogram", "summary", "untyped"]
Sample = tuple[tuple[str, ...], float | None]
"""The values of a family's labels, and its value; None is unknown and makes no sample."""

ALWAYS = ""
"""A collector's name for families that are on every page, whatever was asked for."""
UNITS = ("bytes", "seconds", "celsius", "watts", "joules", "hertz", "ratio")
_LARGEST = 2**64
"""No count is larger. Prometheus drops a whole page for a number that no float can hold."""


class Family(NamedTuple):
    """A family of metrics as it stands on every page; ``of`` are the collectors that feed it.

    ``name`` is that of its samples, so a counter's ends in ``_total`` and a histogram's has no
    suffix yet. ``text`` says what a value means, with its unit. One-hot and info families are
    gauges in both formats: a name has one type, whichever format Prometheus asked for.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str
    of: frozenset[str]

    @property
    def unit(self) -> str:
        """The base unit that the name ends in; empty where there is none."""
        rest, _, unit = self.name.removesuffix("_total").rpartition("_")
        return unit if rest and unit in UNITS else ""


def family(name: str, labels: str, text: str, of: str, kind: Kind | None = None) -> Family:
    """The family *name*; its *labels* and the collectors that it is *of* are words.

    Without a *kind* it is a counter when the name says so, else a gauge.
    """
    kind = kind or ("counter" if name.endswith("_total") else "gauge")
    return Family(name, kind, tuple(labels.split()), text, frozenset(of.split() or (ALWAYS,)))


def one_hot(labels: tuple[str, ...], states: Iterable[str], state: str | None) -> list[Sample]:
    """A sample for each of *states*, 1 for *state*; none when that is unknown."""
    if state is None:
        return []
    return [((*labels, one), one == state) for one in states]


def lines(one: Family, samples: Iterable[Sample]) -> list[str]:
    """The lines of *samples*. What is unknown has none; of two with the same labels the first has.

    A number that is none (NaN, infinite) is unknown, and so is a count below 0.
    """
    name, _, labels, _, _ = one
    counts = one.kind == "counter"
    found: dict[str, str] = {}
    for values, value in samples:
        if value is None or (counts and value < 0):
            continue
        text = number(value)
        if text is not None:
            found.setdefault(_labelled(labels, values), text)
    return [f"{name}{key} {value}" for key, value in found.items()]


def number(value: float) -> str | None:
    """*value* as both formats write it; None when it is no number that they should have."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int):
        return str(value) if -_LARGEST < value < _LARGEST else None
    return repr(value) if math.isfinite(value) else None


@lru_cache(maxsize=4096)
def _labelled(labels: tuple[str, ...], values: tuple[str, ...]) -> str:
    if not labels:
        return ""
    pairs = ",".join(
        f'{label}="{_escape(value)}"' for label, value in zip(labels, values, strict=True)
    )
    return f"{{{pairs}}}"


def _escape(text: str) -> str:
    if not text.isascii():
        # A name from outside may be no Unicode; a label with a ? is better than no page.
        text = text.encode(errors="replace").decode()
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


@lru_cache(maxsize=2048)
def header(name: str, kind: str, text: str, unit: str, fmt: Format) -> str:
    """The lines before a family's samples, with a line end each.

    OpenMetrics knows a counter by its name without ``_total``; one without that suffix is of
    unknown type there.
    """
    if fmt == "text":
        text = text.replace("\\", r"\\").replace("\n", r"\n")
        return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
    if kind == "counter" and name.endswith("_total"):
        name = name.removesuffix("_total")
    elif kind in {"counter", "untyped"}:
        kind = "unknown"
    unit = f"# UNIT {name} {unit}\n" if unit else ""
    return f"# HELP {name} {_escape(text)}\n# TYPE {name} {kind}\n{unit}"
