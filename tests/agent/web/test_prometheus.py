"""A real Prometheus scrapes the endpoint, as an operator would have it: TLS, a name, a password."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cryptography import x509

from tests.agent.exposition import openmetrics
from tests.agent.host import free_port, until
from tests.agent.web.certificates import Authority
from tests.agent.web.conftest import Serve
from tests.agent.web.served import ALICE, MTLS, TLS, WORD, Served, basic
from tests.agent.web.test_rotation import renew

ROOT = Path(__file__).parents[3]
USERS = f"basic_auth_users:\n  alice: {ALICE}\n"
BASIC = f"basic_auth: {{username: alice, password: {WORD}}}"


def program() -> str:
    found = shutil.which("prometheus") or shutil.which(
        "prometheus", path=str(ROOT / ".venv-tools/prometheus/usr/bin")
    )
    assert found, "prometheus is not here; next: make bootstrap"
    return found


class Prometheus:
    """One that scrapes *one* every second, for each of *hows* by a scrape configuration with it."""

    def __init__(self, one: Served, *hows: str) -> None:
        self._port = free_port()
        self.directory = one.directory / f"prometheus-{self._port}"
        self.directory.mkdir()
        (self.directory / "ca.crt").write_bytes(one.authority.certificate)
        config = self.directory / "prometheus.yml"
        jobs = [
            f"  - job_name: job{number}\n"
            f"    static_configs: [{{targets: ['localhost:{one.port}']}}]\n"
            + "".join(f"    {line}\n" for line in how.splitlines())
            for number, how in enumerate(hows)
        ]
        config.write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 900ms}\nscrape_configs:\n"
            + "".join(jobs)
        )
        self.command = [
            *(program(), f"--config.file={config}", f"--storage.tsdb.path={self.directory}/data"),
            *(f"--web.listen-address=127.0.0.1:{self._port}", "--log.level=debug"),
        ]

    @contextmanager
    def running(self) -> Iterator[Prometheus]:
        with (self.directory / "log").open("w") as log:
            process = subprocess.Popen(self.command, stderr=log, cwd=self.directory)
            try:
                until(lambda: self._ask("query?query=1"))
                yield self
            finally:
                process.kill()
                process.wait()

    def _ask(self, path: str) -> Any:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self._port}/api/v1/{path}", timeout=5
        ) as answer:
            return json.load(answer)["data"]

    def value(self, query: str) -> float | None:
        """The one value of *query*; None where there is none."""
        found = self._ask(f"query?query={quote(query)}")["result"]
        return float(found[0]["value"][1]) if found else None

    def failures(self) -> list[str]:
        """What it said of each scrape that failed, but for those that a busy machine delayed."""
        lines = (self.directory / "log").read_text().splitlines()
        failed = [line for line in lines if 'msg="Scrape failed"' in line]
        return [line for line in failed if "deadline exceeded" not in line]

    def errors(self) -> list[str]:
        """What went wrong with the last scrape of each job."""
        targets = self._ask("targets?state=active")["activeTargets"]
        return [one["lastError"] for one in sorted(targets, key=lambda one: one["scrapePool"])]


def test_tls_a_name_and_a_password(serve: Serve, tmp_path: Path) -> None:
    clients = Authority("clients")
    (tmp_path / "ca.crt").write_bytes(clients.certificate)
    one = serve(MTLS + "  client_allowed_sans: [prometheus.example]\n" + USERS)
    pair = clients.client(x509.DNSName("prometheus.example"))
    crt, key = pair.write(tmp_path, "prometheus")
    server = tmp_path / "authority.crt"
    server.write_bytes(one.authority.certificate)
    how = (
        f"scheme: https\n{BASIC}\n"
        f"tls_config: {{ca_file: {server}, cert_file: {crt}, key_file: {key}}}"
    )
    with Prometheus(one, how).running() as prometheus:
        until(lambda: prometheus.value("up") == 1)
        until(lambda: prometheus.value("count(farrier_gpu_up)") == 8)
        # it is asked for what it likes best, and that is ready at the next tick
        forms = one.inside(lambda: set(one.pages._exposition._asked))
        assert forms == {("openmetrics", True)}
        tls = one.context(pair)
        page = one.get("/metrics", {**basic(), "Accept": "application/openmetrics-text"}, tls)
        samples = len(openmetrics(page.body.decode()))
        until(lambda: prometheus.value("scrape_samples_scraped") == samples)
        renew(one, one.authority.server(), tls)
        scrapes = prometheus.value("sum_over_time(up[10m])") or 0
        until(lambda: (prometheus.value("sum_over_time(up[10m])") or 0) > scrapes + 3)
        assert prometheus.failures() == []


def test_over_plain_http(serve: Serve) -> None:
    one = serve()
    with Prometheus(one, "params: {'collect[]': [gpu]}").running() as prometheus:
        until(lambda: prometheus.value("up") == 1)
        until(lambda: prometheus.value("count(farrier_gpu_up)") == 8)
        assert prometheus.value("farrier_replica_up") is None


WRONG = (
    ("", "400 Bad Request"),
    ("scheme: https\ntls_config: {insecure_skip_verify: true}", "401 Unauthorized"),
    (f"scheme: https\n{BASIC}", "certificate signed by unknown authority"),
    (
        "scheme: https\ntls_config: {insecure_skip_verify: true}\n"
        "basic_auth: {username: alice, password: guess}",
        "401 Unauthorized",
    ),
)


def test_what_an_operator_reads_whose_scrape_configuration_is_wrong(serve: Serve) -> None:
    one = serve(TLS + USERS)
    with Prometheus(one, *(how for how, _ in WRONG)).running() as prometheus:
        until(lambda: len(errors := prometheus.errors()) == len(WRONG) and all(errors))
        for error, (_, words) in zip(prometheus.errors(), WRONG, strict=True):
            assert words in error
        assert len(prometheus.failures()) >= len(WRONG)
        assert prometheus.value("farrier_gpus") is None
