"""A real Prometheus scrapes the page, in both formats, and has every sample of it."""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from farrier_agent.metrics.page import CONTENT_TYPES, gather

from tests.agent.exposition import Samples, samples
from tests.agent.full_status import full_extra, full_status, proc_tree
from tests.agent.host import free_port, until
from tests.tools import tool


@contextmanager
def served(body: bytes, kind: str) -> Iterator[int]:
    """Answers *body* to everybody, on the port that is yielded."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


@contextmanager
def prometheus(folder: Path, jobs: Mapping[str, str]) -> Iterator[str]:
    """A Prometheus that scrapes *jobs* at their addresses (HOST:PORT); the address of its API."""
    scraped = [
        {"job_name": name, "static_configs": [{"targets": [address]}]}
        for name, address in jobs.items()
    ]
    config = folder / "prometheus.yml"
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": scraped}))
    listen = f"127.0.0.1:{free_port()}"
    program = subprocess.Popen(
        [
            tool("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={listen}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "prometheus.log").open("w"),
    )
    try:
        yield f"http://{listen}/api/v1/"
    finally:
        program.terminate()
        program.wait(30)


def ask(api: str, query: str) -> list[dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{api}query?query={quote(query)}", timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found
    except OSError:
        return []


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Samples]]:
    folder = tmp_path_factory.mktemp("prometheus")
    page = gather(full_status(), full_extra(proc_tree(folder / "proc")))
    text, openmetrics = page.text("text"), page.text("openmetrics")
    with (
        served(text, CONTENT_TYPES["text"]) as first,
        served(openmetrics, CONTENT_TYPES["openmetrics"]) as second,
        prometheus(
            folder, {"text": f"127.0.0.1:{first}", "openmetrics": f"127.0.0.1:{second}"}
        ) as api,
    ):
        until(lambda: len(ask(api, "up == 1")) == 2, 60)
        yield api, samples(text.decode())


@pytest.mark.parametrize("job", ["text", "openmetrics"])
def test_prometheus_has_every_sample(scraped: tuple[str, Samples], job: str) -> None:
    api, wanted = scraped
    found = {
        (one["metric"].pop("__name__"), labels(one["metric"].items())): float(one["value"][1])
        for one in ask(api, f'{{job="{job}", __name__!~"up|scrape_.*"}}')
    }
    assert found == {(name, labels(pairs)): value for (name, pairs), value in wanted.items()}


def labels(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Without Prometheus' own, and without empty ones: to Prometheus these are not there."""
    return tuple(sorted(one for one in pairs if one[0] not in {"job", "instance"} and one[1]))
