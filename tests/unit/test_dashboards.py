"""The dashboards: every query is answered by a real Prometheus that has what hosts really serve.

It scrapes a page of the agent with every reading, what a real vLLM and a real HAProxy served, a
real node exporter and itself, and runs the rules that the role installs.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from farrier_agent.metrics.page import Extra, gather

from roles.grafana import DASHBOARDS
from tests.agent.full_extra import gateway
from tests.agent.full_status import full_status, proc_tree, requests
from tests.tools import tool
from tests.unit.monitoring import (
    HAPROXY_PAGE,
    RECORDS,
    VLLM_PAGE,
    installed_rules,
    metric_names,
)

HOST, MODEL, REPLICA = "gpu01", "qwen3-32b", "chat-0"
UNITS = {
    *("none", "short", "percentunit", "reqps", "s", "bytes", "Bps", "watt", "celsius", "hertz"),
    "cps",
}
"""Grafana's names of the units that are used."""
NOT_HERE = {"node_disk_read_bytes_total", "node_disk_written_bytes_total", "node_load15"}
"""What the node exporter tells of most machines, and not inside of every container."""

Panel = dict[str, Any]


def dashboards() -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text("utf-8")) for path in DASHBOARDS.glob("*.json")}


def panels() -> list[tuple[str, Panel]]:
    return [
        (name, panel)
        for name, dashboard in sorted(dashboards().items())
        for panel in dashboard["panels"]
        if panel["type"] != "row"
    ]


def queries() -> list[tuple[str, str]]:
    """Each query with the name of its panel, the dashboard's variables filled in."""
    found = []
    for name, panel in panels():
        for target in panel["targets"]:
            expr = target["expr"].replace("$host", HOST).replace("$model", MODEL)
            assert "$" not in expr, expr
            found.append((f"{name}: {panel['title']} {target['refId']}", expr))
    return found


def growing(page: str, times: int) -> str:
    """*page* as it is *times* scrapes later: what counts has counted on."""

    def later(line: re.Match[str]) -> str:
        return f"{line[1]} {float(line[2]) + 10 * times}"

    return re.sub(
        r"^(\w[\w:]*_(?:total|bucket|count|sum)(?:\{.*\})?) (\S+)$", later, page, flags=re.MULTILINE
    )


def of_replica(page: str) -> str:
    """vLLM's own page as the agent passes it through."""
    lines = [line for line in page.splitlines() if re.match(r"(# \w+ )?vllm:", line)]
    labels = f'replica="{REPLICA}",model="{MODEL}",'
    return "\n".join(re.sub(r"^(vllm:\w+)\{", rf"\1{{{labels}", line) for line in lines) + "\n"


@pytest.fixture(scope="module")
def agents_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    proc = proc_tree(tmp_path_factory.mktemp("page") / "proc")
    status = full_status(at=time.time())
    extra = Extra(
        requests=requests(), proc=proc, gateway=gateway(), certificate=time.time() + 86400
    )
    return gather(status, extra).text("text").decode() + of_replica(VLLM_PAGE)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Prometheus:
    """A running one, asked over its HTTP API."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/api/v1"

    def ask(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expr: str) -> list[Any]:
        found: list[Any] = self.ask("query", query=expr)["result"]
        return found

    def within(self, seconds: float, expr: str) -> list[Any]:
        """What *expr* gives as soon as it gives something; nothing after *seconds*."""
        deadline = time.monotonic() + seconds
        while True:
            with suppress(OSError):
                if (found := self.query(expr)) or time.monotonic() > deadline:
                    return found
            if time.monotonic() > deadline:
                return []
            time.sleep(0.2)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, agents_page: str) -> Iterator[Prometheus]:
    directory = tmp_path_factory.mktemp("prometheus")
    (directory / "rules").mkdir()
    installed_rules(directory / "rules")
    scrapes = iter(range(10**6))

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = HAPROXY_PAGE if self.path.startswith("/haproxy") else agents_page
            body = growing(page, next(scrapes)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    agent = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=agent.serve_forever, daemon=True).start()
    own, node = free_port(), free_port()
    labels = {"host": HOST, "groups": "gpu"}
    pages = agent.server_address[1]
    targets = {"node": node, "farrier-agent": pages, "haproxy": pages, "prometheus": own}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [f"{directory}/rules/*.yml"],
        "scrape_configs": [
            {
                "job_name": job,
                "metrics_path": "/haproxy" if job == "haproxy" else "/metrics",
                "static_configs": [
                    {
                        "targets": [f"127.0.0.1:{port}"],
                        "labels": {} if job == "prometheus" else labels,
                    }
                ],
            }
            for job, port in targets.items()
        ],
    }
    # JSON is YAML
    (directory / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
    with (
        (directory / "log").open("w") as log,
        subprocess.Popen(
            [tool("prometheus-node-exporter"), f"--web.listen-address=127.0.0.1:{node}"],
            stdout=log,
            stderr=log,
        ) as exporter,
        subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={directory}/prometheus.yml",
                f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address=127.0.0.1:{own}",
            ],
            stdout=log,
            stderr=log,
        ) as process,
    ):
        it = Prometheus(own)
        try:
            rates = it.within(
                60, "rate(llm_requests_total[5m]) > 0 and on () model:requests:rate5m"
            )
            if not rates:
                pytest.fail((directory / "log").read_text()[-3000:], pytrace=False)
            yield it
        finally:
            process.terminate()
            exporter.terminate()
            agent.shutdown()
            agent.server_close()


def test_every_query_of_a_dashboard_is_answered_with_data(prometheus: Prometheus) -> None:
    empty = []
    for where, expr in queries():
        if metric_names(expr) <= NOT_HERE:
            prometheus.query(expr)  # at least understood
        elif not prometheus.within(15, expr):
            empty.append(f"{where}: {expr}")
    assert empty == []


def test_a_query_without_data_is_seen(prometheus: Prometheus) -> None:
    assert prometheus.within(1, 'farrier_gpu_up{host="another"}') == []


def test_variables_find_their_values(prometheus: Prometheus) -> None:
    for dashboard in dashboards().values():
        for variable in dashboard["templating"]["list"]:
            match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
            assert match, variable
            metric, label = match.groups()
            values = prometheus.ask(f"label/{label}/values", **{"match[]": metric})
            assert values == [{"host": HOST, "model": MODEL}[variable["name"]]]


def test_legends_name_labels_that_the_answers_have(prometheus: Prometheus) -> None:
    wrong = []
    for name, panel in panels():
        for target in panel["targets"]:
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            expr = target["expr"].replace("$host", HOST).replace("$model", MODEL)
            wrong += [
                f"{name}: {panel['title']}: {missing}"
                for found in prometheus.query(expr)[:1]
                if (missing := labels - set(found["metric"]))
            ]
    assert wrong == []


def test_recording_rules_give_something(prometheus: Prometheus) -> None:
    older = {name for name in RECORDS if not prometheus.within(10, name)}
    assert older == set()


def test_no_rule_of_ours_fails_to_be_evaluated(prometheus: Prometheus) -> None:
    groups = prometheus.ask("rules")["groups"]
    assert groups
    failed = {
        rule["name"]: rule.get("lastError")
        for group in groups
        for rule in group["rules"]
        if rule["health"] == "err"
    }
    assert failed == {}


@pytest.mark.parametrize(
    ("name", "panel"),
    panels(),
    ids=lambda value: value if isinstance(value, str) else value["title"],
)
def test_a_panel_is_whole(name: str, panel: Panel) -> None:
    assert panel["title"]
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "farrier"}
    place = panel["gridPos"]
    assert place["x"] + place["w"] <= 24


def test_a_dashboard_is_whole() -> None:
    found = dashboards()
    assert set(found) == {"fleet", "gateway", "host", "model"}
    assert {name: one["uid"] for name, one in found.items()} == {
        name: f"farrier-{name}" for name in found
    }
    for one in found.values():
        ids = [panel["id"] for panel in one["panels"]]
        assert len(ids) == len(set(ids))
        assert one["title"].startswith("Farrier ")


def test_panels_do_not_lie_on_one_another() -> None:
    for one in dashboards().values():
        taken: set[tuple[int, int]] = set()
        for panel in one["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not taken & cells, panel["title"]
            taken |= cells


def test_the_recorded_page_is_of_a_real_vllm() -> None:
    assert 'vllm:generation_tokens_total{engine="0",model_name="tiny"}' in VLLM_PAGE
    assert Path(DASHBOARDS).is_dir()
