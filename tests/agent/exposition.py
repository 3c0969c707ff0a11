"""An exposition as Prometheus reads it."""

from __future__ import annotations

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Samples", "openmetrics", "openmetrics_families", "samples"]

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""Name and sorted labels to value."""


def samples(text: str) -> Samples:
    """All samples of an exposition; refuses what Prometheus or its conventions refuse."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, f"{family.name} has no HELP"
        assert family.type != "unknown", f"{family.name} has no TYPE"
        assert family.samples, f"{family.name} has no sample"
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"twice: {key}"
            assert sample.value == sample.value, f"NaN: {key}"
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
            found[key] = sample.value
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert len(names) == len(set(names)), "a family is in two pieces"
    return found


def openmetrics_families(text: str) -> list[Metric]:
    """The families of a page in OpenMetrics; ValueError for what the reference parser refuses."""
    families = openmetrics_parser.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    return list(families)


def openmetrics(text: str) -> Samples:
    """All samples of a page in OpenMetrics; refuses what the reference parser refuses."""
    found: Samples = {}
    for family in openmetrics_families(text):
        assert family.documentation, f"{family.name} has no HELP"
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"twice: {key}"
            assert sample.value == sample.value, f"NaN: {key}"
            found[key] = sample.value
    return found
