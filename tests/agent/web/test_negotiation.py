"""Which form of /metrics a client gets for what it says."""

from __future__ import annotations

import pytest
from farrier_agent.metrics.page import COLLECTORS
from farrier_agent.web.negotiation import SelectionError, form, selection, takes_gzip
from hypothesis import given
from hypothesis import strategies as st

PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROMETHEUS_3_NATIVE = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;"
    "q=0.6," + PROMETHEUS_3
)
PROMETHEUS_3_TEXT = "text/plain;version=0.0.4;q=0.5,*/*;q=0.4"
PROMETHEUS_2_5 = (
    "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (PROMETHEUS_2_42, "openmetrics"),
        (PROMETHEUS_3, "openmetrics"),
        (PROMETHEUS_3_NATIVE, "openmetrics"),
        (PROMETHEUS_3_TEXT, "text"),
        (PROMETHEUS_2_5, "text"),
        (BROWSER, "text"),
        (None, "text"),
        ("", "text"),
        ("*/*", "text"),
        ("application/openmetrics-text", "openmetrics"),
        ("application/openmetrics-text, */*", "openmetrics"),
        ("Application/OpenMetrics-Text; Version=1.0.0", "openmetrics"),
        ('application/openmetrics-text; version="1.0.0"; charset=utf-8', "openmetrics"),
        ("application/openmetrics-text;q=0.3, text/plain;q=0.4", "text"),
        ("application/openmetrics-text;q=0.5, text/plain;q=0.5", "text"),
        ("application/openmetrics-text;q=0, */*;q=0.1", "text"),
        ("text/plain;q=0, */*", "openmetrics"),
        ("application/*;q=0.9, text/*;q=0.2", "openmetrics"),
        ("application/openmetrics-text;q=high", "text"),
        ("application/openmetrics-text;q=7", "text"),
        ("image/png", "text"),
        (";;,;q=,==,", "text"),
    ],
)
def test_the_form_that_a_client_likes_best(accept: str | None, wanted: str) -> None:
    assert form(accept) == wanted


@pytest.mark.parametrize(
    ("said", "takes"),
    [
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("GZIP;q=0.1", True),
        ("*", True),
        (None, False),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("zstd", False),
    ],
)
def test_who_takes_gzip(said: str | None, takes: bool) -> None:
    assert takes_gzip(said) is takes


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", None),
        ("name[]=x", None),
        ("collect[]=gpu", {"gpu"}),
        ("collect%5B%5D=gpu&collect[]=xid", {"gpu", "xid"}),
        ("collect[]=gpu&collect[]=gpu&x=1", {"gpu"}),
        ("exclude[]=gpu", COLLECTORS - {"gpu"}),
    ],
)
def test_a_selection_of_collectors(query: str, wanted: set[str] | None) -> None:
    assert selection(query, COLLECTORS) == wanted


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("collect[]=gpu&exclude[]=xid", "cannot be combined"),
        ("collect[]=disk", "no such collector: disk"),
        ("exclude%5b%5d=disk&exclude[]=a", "no such collector: a, disk"),
        ("collect[]=", "no such collector: "),
        ("collect[]=gpu" + "&x=1" * 64, "more than 64 fields"),
    ],
)
def test_a_selection_that_cannot_be_followed(query: str, why: str) -> None:
    with pytest.raises(SelectionError, match=why):
        selection(query, COLLECTORS)


@given(st.text(), st.text())
def test_whatever_a_client_says_it_gets_an_answer(said: str, query: str) -> None:
    assert form(said) in {"text", "openmetrics"}
    assert takes_gzip(said) in {True, False}
    try:
        found = selection(query, COLLECTORS)
    except SelectionError:
        return
    assert found is None or found <= COLLECTORS
