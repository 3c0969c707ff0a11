"""An engine's own metrics, made fit for the agent's page: labelled, checked, bounded. No I/O here.

A page is text format 0.0.4 (vLLM, SGLang, TGI, llama.cpp); what comes out is good in OpenMetrics as
well. Of a line that is faulty nothing is passed on, and of a histogram that contradicts itself not
a line: absent beats wrong. Timestamps, exemplars, units and NaN are dropped. These names change:

=====================================  =========================================================
of the engine                          here
=====================================  =========================================================
``process_…``                          ``engine_process_…``: ``process_…`` is the agent itself
``python_… farrier_… llm_… scrape_…``  left out: its interpreter's, or names of others
``up``, ``ALERTS…``                    left out: Prometheus' own
``…_created`` of another family        left out: doubles the series, and nobody asks for it
labels ``replica``, ``model``          ``exported_replica``, ``exported_model``
a counter without ``_total``           the same name, but untyped: OpenMetrics has no such counter
``le="1"``                             ``le="1.0"``, as OpenMetrics writes it
=====================================  =========================================================

An engine's page has the same lines again and again, with other values. So what was found out about
its lines (:class:`.exposed.Plan`) is kept, and as long as they stay only values are looked at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from farrier_agent.engines.exposed import Buckets, Plan, plan

__all__ = ["MAX_BYTES", "MAX_LINES", "MAX_SAMPLES", "Family", "Page", "Relabeller", "merged"]

MAX_BYTES = 4 * 1024 * 1024
"""Of one page; nothing of a larger one is passed on."""
MAX_LINES = 10_000
"""The same. vLLM has about 800, comments among them."""
MAX_SAMPLES = 5000
"""Of one page; a family that does not fit any more is left out."""

_PLAIN = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{0,40})?(?:[eE][+-]?[0-9]{1,2})?")
"""Nearly every value, and none that is too large for a float64: Prometheus refuses a whole page
for one of those."""
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_REST = re.compile(r"[ \t]*(?:-?[0-9]+(?:\.[0-9]+)?)?[ \t]*(?:#[ \t].*)?")
"""A timestamp, and OpenMetrics' exemplar."""
_INFINITE = {"+inf": "+Inf", "inf": "+Inf", "-inf": "-Inf"}
_SUFFIXES = {
    "counter": ("", "_created"),
    "histogram": ("", "_bucket", "_count", "_sum", "_created"),
    "summary": ("", "_count", "_sum", "_created"),
}


class Family(NamedTuple):
    """One family of engines' metrics, of all replicas.

    ``name`` is the family's in 0.0.4 (a counter's ends in ``_total``, which OpenMetrics leaves
    out), ``kind`` one of counter gauge histogram summary untyped (``unknown`` in OpenMetrics),
    ``text`` its HELP, unescaped. ``lines`` are samples without timestamps, labelled with replica
    and model, good as they stand in both formats.
    """

    name: str
    kind: str
    text: str
    lines: tuple[str, ...]


class Page(NamedTuple):
    """What is passed on of one page, and how many of its lines were ``faulty``."""

    families: tuple[Family, ...]
    faulty: int


class Relabeller:
    """Makes the pages of one *replica* of *model* fit to be passed on."""

    def __init__(self, replica: str, model: str) -> None:
        self._labels = (("replica", _escaped(replica)), ("model", _escaped(model)))
        self._plan = Plan([], [], [], (), 0)

    def read(self, body: bytes) -> Page:
        """What is passed on of *body*, whatever it is."""
        if len(body) > MAX_BYTES or body.count(b"\n") >= MAX_LINES:
            return Page((), 1)
        text = body.decode("utf-8", "surrogateescape")
        lines = text.replace("\r\n", "\n").split("\n")
        filled = _filled(lines, self._plan)
        if filled is None or filled[1]:
            # other lines than before, or one that only looks like it
            self._plan = plan(lines, self._labels, MAX_SAMPLES)
            filled = _filled(lines, self._plan)
        if filled is None:
            raise AssertionError("a plan does not fit the page that it was made for")
        made, faulty = filled
        faulty += self._plan.faulty
        families = []
        for family in self._plan.families:
            for histogram in family.histograms:
                if not _is_sound(histogram, made):
                    for line in (*histogram.buckets, histogram.total, histogram.sum):
                        faulty += made[line] is not None
                        made[line] = None
            passed = tuple([one for line in family.lines if (one := made[line]) is not None])
            if passed:
                families.append(Family(family.name, family.kind, family.text, passed))
        return Page(tuple(families), faulty)


def merged(pages: Iterable[Page]) -> tuple[tuple[Family, ...], int]:
    """The families of all *pages*, each in one piece, and how many were left out.

    Those whose names or kinds clash with what came before them (two versions of an engine) are.
    """
    taken: dict[str, str] = {}
    found: dict[str, tuple[str, str, list[str]]] = {}
    clashes = 0
    for page in pages:
        for name, kind, text, lines in page.families:
            if (known := found.get(name)) is not None:
                if known[0] == kind:
                    known[2].extend(lines)
                else:
                    clashes += 1
                continue
            base = name.removesuffix("_total") if kind == "counter" else name
            names = {name, *(base + suffix for suffix in _SUFFIXES.get(kind, ("",)))}
            if taken.keys().isdisjoint(names):
                taken.update(dict.fromkeys(names, name))
                found[name] = (kind, text, list(lines))
            else:
                clashes += 1
    return tuple(Family(name, *one[:2], tuple(one[2])) for name, one in found.items()), clashes


def _filled(lines: list[str], planned: Plan) -> tuple[list[str | None], int] | None:
    """*lines* as they are passed on, by number, and how many values are none.

    None where they are not those of the plan.
    """
    heads, news, signed = planned.heads, planned.news, planned.signed
    if len(lines) != len(heads):
        return None
    plain = _PLAIN.fullmatch
    made: list[str | None] = []
    faulty = 0
    for line, head, new, may_be_below in zip(lines, heads, news, signed, strict=True):
        if not new:
            if line != head and (new is None or not line.startswith(head)):
                return None
            made.append(None)
            continue
        if not line.startswith(head):
            return None
        value = line[len(head) :]
        if plain(value) and (may_be_below or value[0] != "-"):
            made.append(new + value)
        else:
            number = _number(value, may_be_below=may_be_below)
            faulty += number is None
            made.append(new + number if number else None)
    return made, faulty


def _number(text: str, *, may_be_below: bool) -> str | None:
    """The value in *text*, which a timestamp and an exemplar may follow; None for none.

    Nothing for NaN: there is no value, which is no fault.
    """
    word, _, rest = text.partition(" ")
    if not _REST.fullmatch(rest):
        return None
    if word.lower() == "nan":
        return ""
    if not _NUMBER.fullmatch(word) or not math.isfinite(float(word)):
        return _INFINITE.get(word.lower()) if may_be_below else None
    return word if may_be_below or word[0] != "-" else None


def _is_sound(histogram: Buckets, made: list[str | None]) -> bool:
    """Its buckets are whole numbers that never fall, and end at its total."""
    lines = [made[line] for line in (*histogram.buckets, histogram.total)]
    if made[histogram.sum] is None or None in lines:
        return False
    values = [float(line.rpartition(" ")[2]) for line in lines if line is not None]
    return (
        values[-1] == values[-2]
        and values == sorted(values)
        and all(value.is_integer() for value in values)
    )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
