"""An alert's whole way: a metric on a host, Prometheus' rule, Alertmanager, a webhook of ours.

The metric is put where the node exporter's textfile collector finds it: a stand-in for a GPU with a
memory error, on a host without GPUs.
"""

from __future__ import annotations

import http.server
import json
import queue
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from farrier.lab import Lab
from tests.roles.converging import Converge, Run
from tests.roles.fleet import Fleet, until

MONITOR = "gw01"
TEXTFILE = "/var/lib/prometheus/node-exporter/standin.prom"
ECC = 'farrier_gpu_ecc_errors_total{uuid="GPU-standin",kind="uncorrected",memory="dram"} 2\n'
SECRETS = "/etc/prometheus/farrier-secrets"
# as `from farrier.spec import …` would make them, in a file that imports Model alone
WEBHOOK, SLACK = (f"__import__('farrier.spec').spec.{kind}" for kind in ("Webhook", "Slack"))
FAST = {
    "prometheus_scrape_interval": "1s",
    "alertmanager_group_wait": "1s",
    "alertmanager_group_interval": "2s",
}
EXPLAIN = """
curl -sS localhost:9090/api/v1/alerts; echo; curl -sS localhost:9090/api/v1/alertmanagers; echo
curl -sS localhost:9093/api/v2/alerts; echo
journalctl -n 40 --no-pager -o short-iso -u prometheus -u prometheus-alertmanager 2>&1
"""


@dataclass
class Told:
    """What the webhook was told: the messages in their order, and who said so."""

    url: str
    explain: Callable[[], str]
    messages: queue.Queue[tuple[str, Any]] = field(default_factory=queue.Queue)

    def next(self, alert: str, status: str, patience: float = 150) -> tuple[str, Any]:
        """The next message about *alert* with *status*: its Authorization, and its JSON.

        Prometheus tells an alert that met no Alertmanager again after a minute, not before.
        """
        passed_over: list[tuple[Any, str]] = []
        while True:
            try:
                said, message = self.messages.get(timeout=patience)
            except queue.Empty:
                raise AssertionError(
                    f"{alert} {status} not told within {patience:g} s; told meanwhile:"
                    f" {passed_over or 'nothing'}\n{self.explain()}"
                ) from None
            if (message["groupLabels"]["alertname"], message["status"]) == (alert, status):
                return said, message
            passed_over.append((message["groupLabels"], message["status"]))


@pytest.fixture(scope="module")
def told(lab: Lab, hosts: Fleet) -> Iterator[Told]:
    """A webhook on the operator's end of the lab's bridge."""
    gateway = str(lab.definition.gateway)

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            it.messages.put((self.headers.get("Authorization", ""), json.loads(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer((gateway, 0), Hook)
    it = Told(
        f"http://{gateway}:{server.server_address[1]}/farrier",
        lambda: hosts.root(MONITOR, EXPLAIN, check=False),
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield it
    server.shutdown()
    server.server_close()


@dataclass
class Monitor:
    """The monitor host, and its inventory: *receivers* as an operator writes them."""

    fleet: Fleet
    converge: Converge
    directory: Path

    def run(self, *options: str, receivers: str = "[]", **more: Any) -> Run:
        """Converge it."""
        data = {MONITOR: {**FAST, "alertmanager_receivers": _Code(receivers), **more}}
        return self.converge(*options, limit=[MONITOR], data=data)

    def good(self, *options: str, **more: Any) -> Run:
        """The same; it has to succeed."""
        run = self.run(*options, **more)
        assert run.returncode == 0, run.last_words()
        return run

    def root(self, command: str, *, check: bool = True) -> str:
        """What *command* printed as root."""
        return self.fleet.root(MONITOR, command, check=check)

    def pid(self, unit: str) -> str:
        """The unit's main process."""
        return self.fleet.unit(MONITOR, unit, "MainPID")


class _Code:
    """Python that stands as it is in the inventory's file."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __repr__(self) -> str:
        return self.code


@pytest.fixture(scope="module")
def hosts(lab: Lab, converge: Converge) -> Fleet:
    """The lab as it is: what the fleet's other tests left, or hosts that nobody converged."""
    for host in lab.hosts:
        if "gpu" in host.groups:
            converge.models.setdefault(host.name, [])
    return Fleet(lab, converge)


@pytest.fixture(scope="module")
def monitor(
    hosts: Fleet, converge: Converge, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Monitor]:
    """The monitor host; afterwards it is as the inventory of the other tests says."""
    it = Monitor(hosts, converge, tmp_path_factory.mktemp("alerting"))
    yield it
    it.root(f"rm -f {TEXTFILE}")
    run = converge(limit=[MONITOR])
    assert run.returncode == 0, run.last_words()


def secret_file(directory: Path, name: str, content: str) -> str:
    path = directory / name
    path.touch(mode=0o600)
    path.write_text(f"{content}\n", encoding="utf-8")
    return str(path)


def alert_names(monitor: Monitor) -> Mapping[str, str]:
    """The alerts that Prometheus has, with their states."""
    answer = monitor.root("curl -s localhost:9090/api/v1/alerts")
    return {
        one["labels"]["alertname"]: one["state"] for one in json.loads(answer)["data"]["alerts"]
    }


def test_an_alert_reaches_a_webhook_and_is_taken_back(monitor: Monitor, told: Told) -> None:
    token = secrets.token_hex(16)
    file = secret_file(monitor.directory, "token", token)
    receivers = f"[{WEBHOOK}('hook', url={told.url!r}, token_file={file!r})]"
    run = monitor.good("--diff", "-vvv", receivers=receivers)
    assert token not in run.stdout + run.stderr
    again = monitor.good(receivers=receivers)
    assert again.changed(MONITOR) == []
    assert monitor.root(f"stat -c '%a %U' {SECRETS}/hook.token_file") == "600 prometheus\n"
    assert monitor.root(f"cat {SECRETS}/hook.token_file").strip() == token

    monitor.fleet.put(MONITOR, TEXTFILE, ECC)
    said, message = told.next("GpuEccUncorrected", "firing")
    assert said == f"Bearer {token}"
    assert message["receiver"] == "hook"
    (alert,) = message["alerts"]
    assert (
        alert["labels"].items()
        >= {
            "host": MONITOR,
            "uuid": "GPU-standin",
            "severity": "critical",
        }.items()
    )
    assert (
        "GPU GPU-standin of gw01 had 2 uncorrected memory errors"
        in (alert["annotations"]["description"])
    )
    assert alert["annotations"]["runbook_url"] == "docs/runbooks/GpuEccUncorrected.md"
    seen = monitor.root("amtool --alertmanager.url=http://localhost:9093 alert query")
    assert "GpuEccUncorrected" in seen

    monitor.root(f"rm {TEXTFILE}")
    _, message = told.next("GpuEccUncorrected", "resolved")
    assert [alert["status"] for alert in message["alerts"]] == ["resolved"]


def test_a_silence_keeps_an_alert_from_being_told(monitor: Monitor, told: Told) -> None:
    receivers = f"[{WEBHOOK}('hook', url={told.url!r})]"
    monitor.good(receivers=receivers)
    assert monitor.root(f"ls -A {SECRETS}") == "", "a receiver that lost its token keeps no file"
    amtool = "amtool --alertmanager.url=http://localhost:9093"
    silence = monitor.root(
        f"{amtool} silence add --author=test --comment=test --duration=1h"
        " alertname=GpuEccUncorrected"
    ).strip()
    try:
        monitor.fleet.put(MONITOR, TEXTFILE, ECC)
        until(
            lambda: "GpuEccUncorrected" in monitor.root(f"{amtool} alert query --silenced"),
            30,
            "Alertmanager has the alert, silenced",
        )
    finally:
        monitor.root(f"{amtool} silence expire {silence}")
    # Only now: nothing was told before the silence was taken away.
    _, message = told.next("GpuEccUncorrected", "firing")
    assert message["alerts"][0]["startsAt"]
    monitor.root(f"rm {TEXTFILE}")
    told.next("GpuEccUncorrected", "resolved")


def test_changed_rules_are_reloaded_and_nothing_is_restarted(monitor: Monitor) -> None:
    monitor.good()
    before = monitor.pid("prometheus"), monitor.pid("prometheus-alertmanager")
    monitor.root("touch /etc/prometheus/rules/own.yml /etc/prometheus/rules/farrier-old.yml")
    run = monitor.good(prometheus_runbook_url="https://wiki.example.com/runbooks/")
    assert set(run.changed(MONITOR)) == {
        "Prometheus | Targets and rules",
        "Prometheus | Rules of before",
        "Prometheus | Service",
    }

    def links() -> set[str]:
        answer = json.loads(monitor.root("curl -s localhost:9090/api/v1/rules?type=alert"))
        return {
            rule["annotations"]["runbook_url"].rpartition("/")[0]
            for group in answer["data"]["groups"]
            for rule in group["rules"]
        }

    until(lambda: links() == {"https://wiki.example.com/runbooks"}, 10, "the rules were reloaded")
    assert (monitor.pid("prometheus"), monitor.pid("prometheus-alertmanager")) == before
    assert monitor.root("ls /etc/prometheus/rules").split() == [
        *(f"farrier-{name}.yml" for name in ("gateway", "gpu", "host", "recording", "serving")),
        "own.yml",
    ]
    monitor.root("rm /etc/prometheus/rules/own.yml")


def test_rules_that_prometheus_refuses_are_not_loaded(monitor: Monitor) -> None:
    """An operator's own, beside Farrier's: said with the line, and the old ones stay in force."""
    monitor.good()
    before = monitor.pid("prometheus")
    wrong = 'groups: [{name: own, rules: [{alert: A, expr: "sum("}]}]'
    monitor.fleet.put(MONITOR, "/etc/prometheus/rules/own.yml", wrong)
    try:
        run = monitor.run(prometheus_runbook_url="https://wiki.example.com/runbooks")
        assert run.returncode == 1
        assert "own.yml" in run.last_section("Failed:"), run.last_words()
        assert monitor.pid("prometheus") == before
        assert alert_names(monitor) is not None
    finally:
        monitor.root("rm /etc/prometheus/rules/own.yml")
    assert monitor.good().changed(MONITOR) != []


def test_a_mistake_in_a_receiver_is_told_before_a_host_is_touched(monitor: Monitor) -> None:
    run = monitor.run(receivers=f"[{SLACK}('team')]")
    assert run.returncode == 1
    assert "alertmanager_receivers[0].url_file: missing" in run.stderr
    assert "nothing was touched" in run.stderr
    assert run.operations == []


def test_alertmanager_is_removed_and_comes_back(monitor: Monitor) -> None:
    monitor.good()
    for wanted in (True, False):
        run = monitor.converge(
            "--data", "role=alertmanager", deploy="deploys/remove.py", limit=[MONITOR]
        )
        assert run.returncode == 0, run.last_words()
        assert bool(run.changed(MONITOR)) is wanted
    assert monitor.fleet.unit(MONITOR, "prometheus-alertmanager", "ActiveState") == "inactive"
    assert monitor.root(f"ls -d {SECRETS}", check=False) == ""
    monitor.good()
    until(
        lambda: monitor.root("curl -s localhost:9093/-/ready", check=False) == "OK",
        30,
        "Alertmanager is ready again",
    )
    assert monitor.good().changed(MONITOR) == []
