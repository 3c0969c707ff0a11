"""Reads a page of metrics (text format 0.0.4) and plans what becomes of each of its lines. Pure.

Slow, and therefore done only when the lines of a page, but for their values, are other ones than
before: :mod:`.passthrough` has the rules and fills the values in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Buckets", "Plan", "PlannedFamily", "plan"]

MAX_LINE = 8192
MAX_LABELS = 64
"""vLLM has one of 40."""
MAX_LABEL_VALUE = 1024
MAX_HELP = 1024

NO_HELP = "The engine does not say what this is."
KINDS = frozenset({"counter", "gauge", "histogram", "summary"})
LEFT_OUT = ("python_", "farrier_", "llm_", "scrape_", "ALERTS")
_PARTS = {"histogram": ("_bucket", "_count", "_sum"), "summary": ("", "_count", "_sum")}
"""Suffixes of the samples of a family."""

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*[ \t]*=[ \t]*"(?:[^"\\]|\\["\\n])*"'
_LABELS = rf"[ \t]*(?:{_LABEL}[ \t]*(?:,[ \t]*{_LABEL}[ \t]*)*(?:,[ \t]*)?)?"
_SAMPLE = re.compile(rf"({_NAME})(?:[ \t]*\{{({_LABELS})\}}[ \t]*|[ \t]+)(?=[^ \t{{])")
_PAIR = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\["\\n])*)"')
_TYPE = re.compile(rf"#[ \t]+TYPE[ \t]+({_NAME})[ \t]+([a-z]+)[ \t]*")
_HELP = re.compile(rf"#[ \t]+HELP[ \t]+({_NAME})(?:[ \t](.*))?")

_Labels = tuple[tuple[str, str], ...]


class Buckets(NamedTuple):
    """The lines of one histogram: its buckets from the lowest to +Inf, their total, its sum."""

    buckets: tuple[int, ...]
    total: int
    sum: int


class PlannedFamily(NamedTuple):
    """A family and its lines by their numbers, in the order in which they are passed on."""

    name: str
    kind: str
    text: str
    lines: tuple[int, ...]
    histograms: tuple[Buckets, ...]


class Plan(NamedTuple):
    """What becomes of each line of a page.

    ``heads`` is what a line begins with, all of it but the value; ``news`` what it begins with
    here, "" where it is not passed on, None where ``heads`` has the whole of a line that is not (a
    comment, say). ``signed``: its value may be below 0 or infinite. ``faulty`` lines were not
    understood, or said twice, or too many.
    """

    heads: list[str]
    news: list[str | None]
    signed: list[bool]
    families: tuple[PlannedFamily, ...]
    faulty: int


class _Sample(NamedTuple):
    line: int
    suffix: str
    labels: _Labels


class _Family:
    """A family while its samples are gathered."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        self.text = text
        self.samples: list[_Sample] = []


def plan(lines: Sequence[str], labels: _Labels, max_samples: int) -> Plan:
    """What becomes of *lines*, each of whose samples is given *labels* (values escaped)."""
    return _Planner(lines, labels).made(max_samples)


class _Planner:
    """Makes one plan."""

    def __init__(self, lines: Sequence[str], labels: _Labels) -> None:
        self._lines = lines
        self._own = labels
        self._own_names = frozenset(name for name, _ in labels)
        self._kinds: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._families: dict[str, _Family] = {}
        self._heads: list[str] = []
        self._news: list[str | None] = [None] * len(lines)
        self._signed = [False] * len(lines)
        self._seen: set[tuple[str, _Labels]] = set()
        self._faulty = 0

    def made(self, max_samples: int) -> Plan:
        for line in self._lines:
            if line.startswith("#"):
                self._comment(line)
        for number, line in enumerate(self._lines):
            self._heads.append(line if line[:1] in {"", "#"} else self._sample(number, line))
        families, room = [], max_samples
        for name, family in self._families.items():
            planned = self._planned(name, family)
            if len(planned.lines) > room:
                self._drop(planned.lines)
            elif planned.lines:
                families.append(planned)
                room -= len(planned.lines)
        return Plan(self._heads, self._news, self._signed, tuple(families), self._faulty)

    def _comment(self, line: str) -> None:
        if len(line) > MAX_LINE:
            return
        if kind := _TYPE.fullmatch(line):
            self._kinds.setdefault(kind[1], kind[2] if kind[2] in KINDS else "untyped")
        elif text := _HELP.fullmatch(line):
            self._texts.setdefault(text[1], _unescaped(text[2] or ""))

    def _sample(self, number: int, line: str) -> str:
        """Note the sample of *line*; what *line* begins with."""
        found = _SAMPLE.match(line) if len(line) <= MAX_LINE else None
        if found is None:
            self._faulty += 1
            return line
        head = found[0]
        self._news[number] = ""
        family = self._family_of(found[1])
        if family is None:
            return head
        name, kind, suffix, text = family
        labels = self._labels(found[2] or "", suffix, kind)
        if labels is None or (name + suffix, tuple(sorted(labels))) in self._seen:
            self._faulty += 1
            return head
        self._seen.add((name + suffix, tuple(sorted(labels))))
        gathered = self._families.setdefault(name, _Family(kind, text))
        gathered.samples.append(_Sample(number, suffix, labels))
        shown = ",".join(f'{key}="{value}"' for key, value in (*self._own, *labels))
        self._news[number] = f"{name}{suffix}{{{shown}}} "
        self._signed[number] = kind in {"gauge", "untyped"}
        return head

    def _family_of(self, sample: str) -> tuple[str, str, str, str] | None:
        """Name, kind, suffix and text of the family of *sample*; None where it is left out."""
        base, kind, suffix = self._declared(sample)
        created = sample.removesuffix("_created")
        if created != sample and not self._kinds.keys().isdisjoint({created, f"{created}_total"}):
            return None
        if base.startswith(LEFT_OUT) or sample == "up":
            return None
        if kind == "counter":
            if not sample.endswith("_total"):
                kind = "untyped"
            name, suffix = sample, ""
        else:
            name = base
        text = self._texts.get(base) or NO_HELP
        return ("engine_" + name if name.startswith("process_") else name), kind, suffix, text

    def _declared(self, sample: str) -> tuple[str, str, str]:
        """Name, kind and suffix of the family that *sample* belongs to, as the page says."""
        if (kind := self._kinds.get(sample)) is not None:
            return sample, kind, ""
        for kind, suffixes in _PARTS.items():
            for suffix in filter(None, suffixes):
                base = sample.removesuffix(suffix)
                if base != sample and self._kinds.get(base) == kind:
                    return base, kind, suffix
        base = sample.removesuffix("_total")  # OpenMetrics names the family without it
        return (
            (base if self._kinds.get(base) == "counter" else sample),
            ("counter" if self._kinds.get(base) == "counter" else "untyped"),
            "",
        )

    def _labels(self, text: str, suffix: str, kind: str) -> _Labels | None:
        """The labels of a sample with ours told apart; None where they cannot be."""
        pairs: dict[str, str] = {}
        for key, value in _PAIR.findall(text):
            name = f"exported_{key}" if key in self._own_names else key
            if name in pairs or name.startswith("__") or len(value) > MAX_LABEL_VALUE:
                return None
            pairs[name] = value
        if len(pairs) > MAX_LABELS or not _is_utf8(text):
            return None
        wanted = {"histogram": "le", "summary": "quantile"}.get(kind)
        has_it = suffix == ("_bucket" if kind == "histogram" else "")
        if wanted is not None:
            if (wanted in pairs) != has_it:
                return None
            if has_it:
                bound = _canonical(pairs[wanted], negative=kind == "histogram")
                if bound is None:
                    return None
                pairs[wanted] = bound
        return tuple(pairs.items())

    def _planned(self, name: str, family: _Family) -> PlannedFamily:
        if family.kind not in _PARTS:
            lines = tuple(sample.line for sample in family.samples)
            return PlannedFamily(name, family.kind, family.text, lines, ())
        groups: dict[_Labels, list[_Sample]] = {}
        for sample in family.samples:
            key = tuple(sorted(pair for pair in sample.labels if pair[0] not in {"le", "quantile"}))
            groups.setdefault(key, []).append(sample)
        if family.kind == "summary":
            lines = tuple(sample.line for group in groups.values() for sample in group)
            return PlannedFamily(name, family.kind, family.text, lines, ())
        found = [self._histogram(group) for group in groups.values()]
        histograms = tuple(one for one in found if one is not None)
        lines = tuple(line for one in histograms for line in (*one.buckets, one.total, one.sum))
        return PlannedFamily(name, family.kind, family.text, lines, histograms)

    def _histogram(self, group: list[_Sample]) -> Buckets | None:
        """The histogram of a *group* of samples; None where it is not a whole one."""
        bounds = {
            float(dict(sample.labels)["le"]): sample.line
            for sample in group
            if sample.suffix == "_bucket"
        }
        rest = {sample.suffix: sample.line for sample in group if sample.suffix != "_bucket"}
        if math.inf not in bounds or len(rest) != 2 or min(bounds) < 0:
            self._drop(tuple(sample.line for sample in group))
            return None
        buckets = tuple(line for _, line in sorted(bounds.items()))
        return Buckets(buckets, rest["_count"], rest["_sum"])

    def _drop(self, lines: tuple[int, ...]) -> None:
        self._faulty += len(lines)
        for line in lines:
            self._news[line] = ""


def _unescaped(text: str) -> str:
    text = re.sub(r"\\([\\n])", lambda found: {"\\": "\\", "n": "\n"}[found[1]], text)[:MAX_HELP]
    return "".join(char if char.isprintable() else " " for char in text)


def _is_utf8(text: str) -> bool:
    """No byte of *text*, decoded with surrogateescape, was no UTF-8."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _canonical(text: str, *, negative: bool) -> str | None:
    """A bucket's bound or a quantile as OpenMetrics writes it; None when it is no number."""
    try:
        number = float(text)
    except ValueError:
        return None
    if math.isnan(number) or not (negative or 0 <= number <= 1):
        return None
    if math.isinf(number):
        return "+Inf" if number > 0 else None
    digits = repr(number)
    dot = digits.find(".")
    if number > 0 and dot > 6:  # Go's %g: 1e+06
        mantissa = f"{digits[0]}.{digits[1:dot]}{digits[dot + 1 :]}".rstrip("0.")
        return f"{mantissa}e+{dot - 1:02d}"
    return digits
