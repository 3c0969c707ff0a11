"""The lines of a histogram, under the three names of its samples."""

from __future__ import annotations

from farrier_agent.collectors.histogram import Histogram
from farrier_agent.metrics.family import Family, Sample, lines

__all__ = ["histogram_lines"]


def histogram_lines(one: Family, key: tuple[str, ...], histogram: Histogram) -> list[str]:
    """The lines of *histogram* with the labels *key*, of the family *one*."""
    buckets, count, total = _parts(one)
    bounds = [*map(_bound, histogram.bounds), "+Inf"]
    samples: list[Sample] = [
        ((*key, bound), number) for bound, number in zip(bounds, histogram.cumulative, strict=True)
    ]
    return [
        *lines(buckets, samples),
        *lines(count, [(key, histogram.cumulative[-1])]),
        *lines(total, [(key, histogram.sum)]),
    ]


def _parts(one: Family) -> tuple[Family, Family, Family]:
    return (
        one._replace(name=f"{one.name}_bucket", labels=(*one.labels, "le")),
        one._replace(name=f"{one.name}_count"),
        one._replace(name=f"{one.name}_sum"),
    )


def _bound(bound: float) -> str:
    # OpenMetrics wants 1.0, not 1: the same bound is to be the same series in both formats
    return repr(float(bound))
