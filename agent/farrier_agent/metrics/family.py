"""Makes one family of samples. A value of None is unknown and makes no sample."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

__all__ = ["Sample", "counter", "gauge", "one_hot"]

Sample = tuple[tuple[str, ...], float | None]


def gauge(name: str, text: str, labels: tuple[str, ...], samples: Iterable[Sample]) -> Metric:
    """The gauge *name*."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric(values, float(value))
    return family


def counter(name: str, text: str, labels: tuple[str, ...], samples: Iterable[Sample]) -> Metric:
    """The counter *name*, which ends in ``_total``."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric(values, float(value))
    return family


def one_hot(labels: tuple[str, ...], states: Iterable[str], state: str | None) -> list[Sample]:
    """A sample for each of *states*, 1 for *state*; none when that is unknown."""
    if state is None:
        return []
    return [((*labels, one), one == state) for one in states]
