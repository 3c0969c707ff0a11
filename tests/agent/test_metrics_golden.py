"""Every metric's name, type, unit and labels, and what the reference parsers and promtool say.

``golden/metrics.txt`` is what operators' rules and dashboards are written against. A line of it
changes only on purpose: a metric that is renamed or loses a label breaks them without a word.
"""

from __future__ import annotations

import difflib
import subprocess

import pytest
from farrier_agent.metrics.page import FAMILIES, Extra, Page, gather
from farrier_agent.status import Status

from tests.agent.exposition import openmetrics, samples
from tests.agent.full_status import full_extra, full_status, proc_tree
from tests.agent.golden.metrics import GOLDEN, described
from tests.tools import tool


@pytest.fixture(scope="module")
def extra(tmp_path_factory: pytest.TempPathFactory) -> Extra:
    return full_extra(proc_tree(tmp_path_factory.mktemp("golden") / "proc"))


@pytest.fixture(scope="module")
def status() -> Status:
    return full_status()


@pytest.fixture(scope="module")
def page(status: Status, extra: Extra) -> Page:
    return gather(status, extra)


def test_names_types_units_and_labels_are_the_golden_ones(page: Page) -> None:
    found = described(page)
    golden = GOLDEN.read_text(encoding="utf-8")
    difference = difflib.unified_diff(
        golden.splitlines(), found.splitlines(), "golden", "found", lineterm="", n=0
    )
    assert found == golden, "\n".join(
        (*difference, "if that is meant: python -m tests.agent.golden.metrics")
    )


def test_the_golden_metrics_are_those_that_are_declared() -> None:
    """A family that no full status brings to the page would be in no golden list."""
    golden = {line.split()[0]: line.split() for line in GOLDEN.read_text().splitlines()}
    declared = {
        one.name: [one.name, one.kind, one.unit or "-", ",".join(one.labels) or "-"]
        for one in FAMILIES
    }
    assert golden == declared


def test_both_formats_say_the_same_and_nothing_twice(page: Page) -> None:
    text = samples(page.text("text").decode())
    assert len(text) > 1800
    assert openmetrics(page.text("openmetrics").decode()) == text


def test_promtool_has_nothing_to_say(status: Status, extra: Extra) -> None:
    """Of the agent's own metrics; engines have colons in their names, which it dislikes."""
    own = Extra(
        requests=extra.requests,
        proc=extra.proc,
        gateway=extra.gateway,
        certificate=extra.certificate,
    )
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"],
        input=gather(status, own).text("text"),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
