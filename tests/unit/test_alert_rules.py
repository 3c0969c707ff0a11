"""The alert rules, by the real promtool: each fires on its fault, is silent without it, says what
to do, and has a page for whoever is woken by it."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from farrier_agent.health.rules import BY_NAME
from farrier_agent.health.xids import CLASSES

from roles.prometheus.rules import RULES, rule_texts
from tests.tools import tool
from tests.unit.monitoring import (
    ALERTS,
    CASES,
    HAPROXY_PAGE,
    RECORDS,
    ROOT,
    RULE_FILES,
    VLLM_PAGE,
    installed_rules,
    metric_names,
    names_on,
)

RUNBOOKS = ROOT / "docs/runbooks"
OLDER = {"vllm:gpu_cache_usage_perc"}
"""What vLLM called it before 0.10; today's page cannot have it."""
PROMETHEUS_OWN = {"up"}


KNOWN = 'farrier_gpu_info{host="gpu01",uuid="GPU-a",index="3",name="NVIDIA H200"}'
"""The one GPU whose identity the tests of wording know."""


def agents_own() -> set[str]:
    """Every name that the agent's page can have, from the golden list."""
    names = set()
    for line in (ROOT / "tests/agent/golden/metrics.txt").read_text("utf-8").splitlines():
        name, kind, *_ = line.split()
        names |= (
            {f"{name}_{part}" for part in ("bucket", "sum", "count")}
            if kind == "histogram"
            else {name}
        )
    return names


def cases() -> list[dict[str, Any]]:
    return [test for path in CASES for test in yaml.safe_load(path.read_text("utf-8"))["tests"]]


def expectations() -> dict[str, list[bool]]:
    """For each alert, whether it was expected at each moment that a test looks at."""
    found = defaultdict(list)
    for test in cases():
        for one in test.get("alert_rule_test", ()):
            found[one["alertname"]].append(bool(one.get("exp_alerts")))
    return found


def promtool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("promtool"), *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("path", sorted(RULES.glob("*.yml")), ids=lambda path: path.name)
def test_promtool_accepts_the_file_as_it_is(path: Path) -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(path), cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_files_as_they_are_installed(tmp_path: Path) -> None:
    for name, text in rule_texts("https://runbooks.example/").items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert "@" not in re.sub(r"[\w.]+@[\w.]+", "", text.partition("groups:")[2])
        assert "https://runbooks.example//" not in text
    files = sorted(path.name for path in tmp_path.iterdir())
    assert len(files) == len(RULE_FILES)
    done = promtool("check", "rules", *files, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_alerts_fire_on_their_faults_alone(path: Path, tmp_path: Path) -> None:
    installed_rules(tmp_path, annotations=False)
    (tmp_path / "test.yml").write_text(path.read_text("utf-8"), encoding="utf-8")
    done = promtool("test", "rules", "test.yml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_that_never_fires_is_seen(tmp_path: Path) -> None:
    """The tests above can fail."""
    installed_rules(tmp_path, annotations=False)
    gpu = (tmp_path / "gpu.yml").read_text("utf-8")
    (tmp_path / "gpu.yml").write_text(
        gpu.replace("farrier_gpu_row_remap_failed == 1", "vector(0) == 1")
    )
    path = next(path for path in CASES if path.stem == "gpu")
    (tmp_path / "test.yml").write_text(path.read_text("utf-8"), encoding="utf-8")
    done = promtool("test", "rules", "test.yml", cwd=tmp_path)
    assert done.returncode == 1
    assert "RowRemapFailed" in done.stdout + done.stderr


def test_every_alert_has_a_firing_and_a_silent_case() -> None:
    looked_at = expectations()
    assert set(looked_at) == set(ALERTS)
    one_sided = {name: seen for name, seen in looked_at.items() if set(seen) != {True, False}}
    # what a test of the counter's level cannot be silent about is silent in another test
    assert one_sided == {}


def test_every_recording_rule_is_looked_at() -> None:
    asked = {one["expr"] for test in cases() for one in test.get("promql_expr_test", ())}
    by_alerts = {name for rule in ALERTS.values() for name in metric_names(rule["expr"])}
    assert (
        set(RECORDS) - {name for expr in asked for name in metric_names(expr)} - by_alerts == set()
    )


def test_every_metric_that_a_rule_asks_for_exists() -> None:
    known = agents_own() | names_on(VLLM_PAGE) | names_on(HAPROXY_PAGE) | set(RECORDS)
    known |= PROMETHEUS_OWN | OLDER
    asked = {
        name: metric_names(expr) - known
        for name, expr in (*RECORDS.items(), *((n, r["expr"]) for n, r in ALERTS.items()))
    }
    assert {name: unknown for name, unknown in asked.items() if unknown} == {}


def test_metric_names_are_read_from_an_expression() -> None:
    expr = (
        'sum by (host, le) (rate(a_total{code=~"5..|x{y"}[5m])) / on (host) group_left (model) b:c '
        "and time() - d > 0 or avg_over_time(e[5m]) unless on (f) (g == 1)"
    )
    assert metric_names(expr) == {"a_total", "b:c", "d", "e", "g"}


def test_severities_and_scopes() -> None:
    assert {rule["labels"]["severity"] for rule in ALERTS.values()} == {"critical", "warning"}
    assert {rule["labels"]["scope"] for rule in ALERTS.values()} == {
        *("host", "gpu", "replica", "model", "gateway"),
    }


def test_an_xid_is_critical_or_a_warning_and_not_both() -> None:
    def xids(alert: str) -> set[str]:
        return {
            number
            for group in re.findall(r'xid=~"([\d|]+)"', ALERTS[alert]["expr"])
            for number in group.split("|")
        }

    assert xids("GpuXidActionable") & xids("GpuXidRepeated") == set()
    assert xids("GpuXidActionable") >= {"79", "48", "64", "95", "119"}
    at_once, held = re.findall(r'xid=~"([\d|]+)"', ALERTS["GpuXidActionable"]["expr"])
    # a double-bit error means nothing without what stands beside it, which the agent looks at
    assert set(held.split("|")) - set(at_once.split("|")) == {"48"}


def test_rules_that_are_named_are_the_agents() -> None:
    names = {
        name
        for rule in ALERTS.values()
        for group in re.findall(r'rule(?:=|=~|!~)"([^"]+)"', rule["expr"])
        for name in group.split("|")
    }
    assert names - BY_NAME.keys() == set()
    for state in ("unhealthy", "degraded"):
        (left_out,) = re.findall(
            r'rule!~"([^"]+)"', ALERTS[f"{state.capitalize()}ForAnotherReason"]["expr"]
        )
        other = {name for name in left_out.split("|") if BY_NAME[name].state != state}
        assert other == set(), f"never {state}: {other}"
        by_reason = names & {name for name, rule in BY_NAME.items() if rule.state == state}
        assert by_reason <= set(left_out.split("|")), "told twice"


def test_xids_are_sorted_as_the_agent_sorts_them() -> None:
    of = {alert: re.findall(r'xid=~"([\d|]+)"', rule["expr"]) for alert, rule in ALERTS.items()}
    at_once = set(map(int, of["GpuXidActionable"][0].split("|")))
    assert at_once == CLASSES["reset"] | CLASSES["reboot"] | CLASSES["power"]
    assert set(map(int, of["GpuXidRepeated"][0].split("|"))) == CLASSES["app"]


def rendered(path: Path, directory: Path) -> list[tuple[dict[str, str], dict[str, str]]]:
    """Labels and annotations of every alert that fires in the tests of *path*.

    promtool shows them where it is told to expect none.
    """
    installed_rules(directory)
    content = yaml.safe_load(path.read_text("utf-8"))
    for test in content["tests"]:
        test["input_series"].append(
            {
                "series": KNOWN,
                "values": "1x400",
            }
        )
        for one in test.get("alert_rule_test", ()):
            one.pop("exp_alerts", None)
    (directory / "test.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
    done = promtool("test", "rules", "test.yml", cwd=directory)
    said = done.stdout + done.stderr
    pairs = re.findall(r"Labels:\{(.*)\}\n\s+Annotations:\{(.*)\}", said)

    def parsed(text: str) -> dict[str, str]:
        return dict(re.findall(r'(\w+)="((?:\\.|[^"\\])*)"', text))

    return [(parsed(labels), parsed(annotations)) for labels, annotations in pairs]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, str], dict[str, str]]]:
    return [one for path in CASES for one in rendered(path, tmp_path_factory.mktemp(path.stem))]


def test_annotations_render_and_say_where_what_and_what_next(
    told: list[tuple[dict[str, str], dict[str, str]]],
) -> None:
    assert {labels["alertname"] for labels, _ in told} == set(ALERTS)
    for labels, said in told:
        name = labels["alertname"]
        assert set(said) == {"summary", "description", "runbook_url"}, name
        text = said["summary"] + " " + said["description"]
        assert not re.search(
            r"<error|error (expanding|executing|calling)|<no value>|%!|@[A-Z]+@|\{\{", text
        ), f"{name}: {text}"
        assert labels.get("host", labels.get("model", "?")) in said["summary"], name
        assert " Next" in said["description"], name
        assert len(said["summary"]) <= 110, said["summary"]
        if "uuid" in labels:
            assert labels["uuid"] in text, name
        assert said["runbook_url"] == f"https://runbooks.example/{name}.md"


def test_a_gpu_is_named_by_its_index_where_that_is_known(
    told: list[tuple[dict[str, str], dict[str, str]]],
) -> None:
    known, unknown = "GPU 3, NVIDIA H200, GPU-a of gpu01", "GPU GPU-b of gpu02"
    text = " ".join(said["description"] for _, said in told)
    assert known in text
    assert unknown in text


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_every_alert_has_a_page(alert: str) -> None:
    page = (RUNBOOKS / f"{alert}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {alert}\n\nSeverity: {ALERTS[alert]['labels']['severity']}.\n")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == [
        *("It means", "Hurt", "Look", "Do", "Verify", "It clears"),
    ]
    assert len(page.split()) < 400, "at 3 a.m. it has to be short"
    assert f"[{alert}]({alert}.md) | {ALERTS[alert]['labels']['severity']}" in (
        RUNBOOKS / "README.md"
    ).read_text(encoding="utf-8")


def test_no_page_is_of_an_alert_that_is_gone() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == set(ALERTS)
