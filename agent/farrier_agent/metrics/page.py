"""The page that ``/metrics`` serves: all families, in Prometheus' text format or in OpenMetrics.

    page = gather(status, Extra(engine_families, requests))
    page.text("text")                                  # Prometheus 0.0.4
    page.text("openmetrics", frozenset({"gpu"}))       # OpenMetrics 1.0, GPUs alone

The samples are written once, by :func:`gather`; both formats and every choice of collectors share
them. A family without a sample is not on the page. Engines' own families come last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast, get_args

from farrier_agent.collectors.gateway import GatewayCounts
from farrier_agent.collectors.requests import RequestCounts
from farrier_agent.engines.passthrough import Family as EngineFamily
from farrier_agent.metrics import (
    clocks,
    ecc,
    fingerprint,
    gateway,
    gpus,
    health,
    host,
    links,
    mig,
    nvml,
    processes,
    replicas,
    requests,
    rollouts,
    units,
    xids,
)
from farrier_agent.metrics.family import ALWAYS, Family, Format, Kind, Sample, header, lines
from farrier_agent.status import Status

__all__ = [
    "COLLECTORS",
    "CONTENT_TYPES",
    "FAMILIES",
    "NOTHING",
    "Extra",
    "Page",
    "gather",
    "render",
]

CONTENT_TYPES: dict[Format, str] = {
    "text": "text/plain; version=0.0.4; charset=utf-8",
    "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
}

FAMILIES: tuple[Family, ...] = (
    *host.FAMILIES,
    *replicas.FAMILIES,
    *health.FAMILIES,
    *requests.FAMILIES,
    *gateway.FAMILIES,
    *rollouts.FAMILIES,
    *fingerprint.FAMILIES,
    *gpus.FAMILIES,
    *clocks.FAMILIES,
    *ecc.FAMILIES,
    *links.FAMILIES,
    *mig.FAMILIES,
    *units.FAMILIES,
    *xids.FAMILIES,
    *nvml.FAMILIES,
    *processes.FAMILIES,
)
"""Every family of the agent's own, in the order of the page."""

ENGINE = "engine"
COLLECTORS = frozenset({ENGINE}.union(*(one.of for one in FAMILIES))) - {ALWAYS}
"""What can be asked for by name. ``health`` and ``agent`` are no collectors, but may be chosen."""

RESERVED = ("farrier_", "llm_", "process_")
"""How the names of the agent's own families begin, and none of an engine's."""

# What a family occupies beside its own name, in OpenMetrics.
_SUFFIXES = {
    "counter": ("_total", "_created"),
    "histogram": ("_count", "_sum", "_bucket", "_created"),
    "summary": ("_count", "_sum", "_created"),
}


@dataclass(frozen=True)
class Extra:
    """What is on the page beside the status: engines' families, what proxies told, and /proc.

    ``faulty`` are the lines of each replica's engine that could not be passed on. ``certificate``
    is when that of the gateway runs out, in seconds since the epoch.
    """

    engine_families: Sequence[EngineFamily] = ()
    requests: RequestCounts | None = None
    proc: Path = Path("/proc")
    faulty: Mapping[str, int] = field(default_factory=dict)
    gateway: GatewayCounts | None = None
    certificate: float | None = None


NOTHING = Extra()
"""A page of the status and the agent's process alone."""


class _Written(NamedTuple):
    """A family with its samples as lines, with a line end each. ``clashes``: not in OpenMetrics."""

    family: Family
    body: str
    clashes: bool = False


class Page:
    """Everything that can be said at one moment."""

    def __init__(self, written: Iterable[_Written]) -> None:
        self._written = tuple(written)

    def text(self, fmt: Format, collect: frozenset[str] | None = None) -> bytes:
        """The page in *fmt*; with *collect* only what those collectors feed, and how all fare."""
        wanted = None if collect is None else collect | {ALWAYS}
        parts: list[str] = []
        for one, body, clashes in self._written:
            if (wanted is None or wanted & one.of) and not (clashes and fmt == "openmetrics"):
                parts += (header(one.name, one.kind, one.text, one.unit, fmt), body)
        if fmt == "openmetrics":
            parts.append("# EOF\n")
        return "".join(parts).encode(errors="replace")


def gather(status: Status, extra: Extra = NOTHING) -> Page:
    """The page of *status* and *extra*. Reads ``extra.proc``, and nothing else."""
    found = {
        one.name: _Written(one, "\n".join(written) + "\n")
        for one, written in _own(status, extra)
        if written
    }
    for theirs in extra.engine_families:
        _join(found, theirs)
    return Page(_told_apart(sorted(found.values(), key=_place)))


def render(
    status: Status,
    extra: Extra = NOTHING,
    fmt: Format = "text",
    collect: frozenset[str] | None = None,
) -> bytes:
    """One page of *status*. Who needs several has them cheaper from one :func:`gather`."""
    return gather(status, extra).text(fmt, collect)


def _own(status: Status, extra: Extra) -> Iterator[tuple[Family, list[str]]]:
    for one, samples in _samples(status, extra):
        yield one, lines(one, samples)
    if extra.requests:
        yield from requests.written_histograms(extra.requests)
    if extra.gateway:
        yield from gateway.written_histograms(extra.gateway)


def _samples(status: Status, extra: Extra) -> Iterator[tuple[Family, list[Sample]]]:
    yield from host.samples(status)
    yield from replicas.samples(status.replicas)
    yield requests.in_flight(status.replicas)
    yield replicas.faulty(extra.faulty)
    if extra.requests:
        yield from requests.samples(extra.requests)
    if extra.gateway:
        yield from gateway.samples(extra.gateway)
    yield from rollouts.samples(status.rollout)
    yield from fingerprint.samples(status.fingerprint)
    yield gateway.certificate(extra.certificate)
    if status.health:
        yield from health.samples(status.health)
    devices = status.gpus.devices if status.gpus else ()
    if status.gpus:
        yield from gpus.samples(status.gpus)
    for subject in (clocks.samples, ecc.samples, links.samples, mig.samples):
        yield from subject(devices)
    yield from units.samples(devices, status.gpu_units)
    yield from xids.samples(status.xids)
    if status.nvml:
        yield from nvml.samples(status.nvml)
    yield from processes.samples(extra.proc, status.nvml.pid if status.nvml else None)


def _join(found: dict[str, _Written], theirs: EngineFamily) -> None:
    """Add an engine's family, unless its name is of those that only the agent gives."""
    name = theirs.name
    if not theirs.lines or name.startswith(RESERVED):
        return
    kind = cast("Kind", theirs.kind if theirs.kind in get_args(Kind) else "untyped")
    one = Family(name, kind, (), theirs.text, frozenset({ENGINE}))
    body = "\n".join(theirs.lines) + "\n"
    before = found.get(name)
    if before is None:
        found[name] = _Written(one, body)
    elif before.family.kind == kind:
        found[name] = before._replace(body=before.body + body)


def _told_apart(written: Iterable[_Written]) -> Iterator[_Written]:
    """Marks families that OpenMetrics would take for a part of another, such as ``x_created``."""
    occupied: set[str] = set()
    for one in written:
        name = one.family.name
        if one.family.kind == "counter":
            name = name.removesuffix("_total")
        names = {name, *(name + suffix for suffix in _SUFFIXES.get(one.family.kind, ()))}
        if names & occupied:
            yield one._replace(clashes=True)
        else:
            occupied |= names
            yield one


def _place(one: _Written) -> int:
    return _PLACES.get(one.family.name, len(_PLACES))


_PLACES = {one.name: place for place, one in enumerate(FAMILIES)}
