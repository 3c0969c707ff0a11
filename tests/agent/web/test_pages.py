"""/metrics is made once per tick, in the forms that are asked for."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import msgspec
import pytest
from farrier_agent.metrics.page import Extra
from farrier_agent.web import Pages
from farrier_agent.web.exposition import MAX_SELECTIONS, WANTED_SECONDS
from farrier_agent.web.messages import Answer, Request

from tests.agent.exposition import openmetrics, samples
from tests.agent.full_status import full_extra, full_status, proc_tree

OPENMETRICS = {"accept": "application/openmetrics-text;version=1.0.0"}
GZIP = {"accept-encoding": "gzip"}


class Watch:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def extra(tmp_path: Path) -> Extra:
    return full_extra(proc_tree(tmp_path / "proc"))


@pytest.fixture
def pages(watch: Watch, extra: Extra) -> Pages:
    found = Pages(watch)
    found.show(full_status(), extra)
    found.render()
    return found


def get(pages: Pages, query: str = "", headers: dict[str, str] | None = None) -> Answer:
    return pages.answer(Request("GET", "/metrics", query, headers or {}))


def test_both_forms_are_what_their_parsers_read(pages: Pages) -> None:
    text = get(pages)
    assert text.kind == "text/plain; version=0.0.4; charset=utf-8"
    strict = get(pages, headers=OPENMETRICS)
    assert strict.kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert openmetrics(strict.body.decode()) == samples(text.body.decode())
    assert ("vary", "accept, accept-encoding") in text.headers
    assert ("cache-control", "no-store") in text.headers


@pytest.mark.parametrize("form", [{}, OPENMETRICS])
def test_gzip_has_the_same_in_it(pages: Pages, form: dict[str, str]) -> None:
    plain, packed = get(pages, headers=form), get(pages, headers=form | GZIP)
    assert ("content-encoding", "gzip") in packed.headers
    assert ("content-encoding", "gzip") not in plain.headers
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 5


def test_a_page_is_as_old_as_the_last_tick(pages: Pages, extra: Extra) -> None:
    before = get(pages)
    for number in range(5):
        agent = msgspec.structs.replace(full_status().agent, version=f"9.9.{number}")
        pages.show(msgspec.structs.replace(full_status(), agent=agent), extra)
    assert get(pages).body is before.body, "news make no page"
    status = json.loads(pages.answer(Request("GET", "/status")).body)
    assert status["agent"]["version"] == "9.9.4", "the small pages are of this moment"
    pages.render()
    assert b'version="9.9.4"' in get(pages).body
    assert get(pages).body is get(pages).body


ENGINES = b"vllm:"


def test_what_is_asked_for_is_made_before_it_is_asked_for(
    pages: Pages, watch: Watch, extra: Extra
) -> None:
    get(pages, headers=OPENMETRICS | GZIP)
    pages.render()
    pages.show(full_status())
    made = get(pages, headers=OPENMETRICS | GZIP)
    assert ENGINES in gzip.decompress(made.body), "as it was at the tick"
    assert ENGINES in get(pages).body, "another form is made of the same samples"
    watch.now += WANTED_SECONDS + 1
    pages.render()
    pages.show(full_status(), extra)
    assert ENGINES in get(pages).body, "nobody wanted any for so long: it is of this moment"


def test_a_selection(pages: Pages) -> None:
    text = get(pages, "collect[]=gpu").body.decode()
    assert "farrier_gpu_power_watts{" in text
    assert "farrier_replica_up{" not in text
    text = get(pages, "exclude[]=gpu").body.decode()
    assert "farrier_gpu_power_watts{" not in text
    assert "farrier_replica_up{" in text
    packed = get(pages, "collect[]=gpu", OPENMETRICS | GZIP)
    assert openmetrics(gzip.decompress(packed.body).decode())


@pytest.mark.parametrize("query", ["collect[]=disk", "collect[]=gpu&exclude[]=xid"])
def test_a_selection_that_cannot_be_followed_says_what_there_is(pages: Pages, query: str) -> None:
    answer = get(pages, query)
    assert answer.code == 400
    assert {"gpu", "xid", "engine"} < set(json.loads(answer.body)["collectors"])


def test_too_many_selections_in_one_tick_are_refused(pages: Pages) -> None:
    names = sorted(json.loads(get(pages, "collect[]=disk").body)["collectors"])
    queries = [f"collect[]={one}&collect[]={two}" for one in names for two in names if one < two]
    codes = [get(pages, query).code for query in queries]
    assert codes == [200] * MAX_SELECTIONS + [503] * (len(queries) - MAX_SELECTIONS)
    assert get(pages).code == 200
    assert get(pages, queries[0]).code == 200, "what is made is made"
    pages.render()
    assert get(pages, queries[-1]).code == 200
