"""What the demo waits for, what it says meanwhile, and how it gives up."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
from farrier_agent.status import Agent, Replica, Status, Unit, dumps

from farrier.demo import DemoError
from farrier.demo.replicas import await_gates
from farrier.demo.scrapes import Target, await_targets

ROOT = Path(__file__).parents[2]


@contextmanager
def answering(*bodies: bytes) -> Iterator[str]:
    """A server that answers each GET with the next of *bodies*, the last one for ever."""
    rest = list(bodies)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = rest.pop(0) if len(rest) > 1 else rest[0]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def targets(**health: str) -> bytes:
    """An answer of Prometheus 2.42's /api/v1/targets, as far as it is read."""
    active: list[dict[str, Any]] = [
        {
            "discoveredLabels": {"__address__": instance},
            "labels": {"instance": instance, "job": "node"},
            "scrapePool": "node",
            "lastError": "" if word != "down" else "connection refused",
            "health": word,
        }
        for instance, word in health.items()
    ]
    return json.dumps(
        {"status": "success", "data": {"activeTargets": active, "droppedTargets": []}}
    ).encode()


def status(gate: Literal["open", "closed"], *, up: bool, detail: str | None = None) -> bytes:
    unit = Unit(name="engine-a.service", load_state="loaded", active_state="active", sub_state="x")
    replica = Replica(
        name="a",
        model="tiny",
        engine="vllm",
        unit="engine-a.service",
        port=8101,
        unit_state=unit,
        up=up,
        gate=gate,
        detail=detail,
    )
    agent = Agent(version="0", python="3.11", pid=1, started_at=0.0)
    return dumps(
        Status(host="g", at=1.0, accelerator="cpu", agent=agent, ready=up, replicas=(replica,))
    )


def test_targets_are_waited_for() -> None:
    heard: list[str] = []
    script = (targets(), targets(b="unknown", a="up"), targets(b="unknown", a="up"))
    with answering(*script, targets(b="up", a="up")) as base:
        found = await_targets(base, heard.append, patience=20, every=0.01)
    assert found == [Target("node", "a", "up", ""), Target("node", "b", "up", "")]
    assert heard == ["0 of 0 targets are not up yet", "1 of 2 targets are not up yet"]


def test_a_target_that_stays_down_is_named_with_its_error() -> None:
    with (
        answering(targets(a="up", b="down")) as base,
        pytest.raises(DemoError, match=r"node b is down: connection refused") as caught,
    ):
        await_targets(base, lambda _: None, patience=0.05, every=0.01)
    assert "node a" not in caught.value.why
    assert caught.value.next == f"curl -s {base}/api/v1/targets"


def test_something_else_on_prometheus_port_is_said() -> None:
    with answering(b"<html>") as base, pytest.raises(DemoError, match="not Prometheus' targets"):
        await_targets(base, lambda _: None, patience=0.05, every=0.01)


def test_gates_are_waited_for_and_what_holds_them_is_said() -> None:
    heard: list[str] = []
    loading = status("closed", up=False, detail="no answer on port 8101")
    script = (loading, loading, status("closed", up=True), status("open", up=True))
    with answering(*script) as base:
        statuses = await_gates({"gpu01": base}, heard.append, patience=20, every=0.01)
    assert statuses["gpu01"].replicas[0].gate == "open"
    assert [line.split("  ")[-1] for line in heard] == [
        "gpu01: a: no answer on port 8101",
        "gpu01: a: gate closed",
    ]


def test_a_gate_that_stays_closed_ends_in_a_command() -> None:
    with (
        answering(status("closed", up=False, detail="unit failed")) as base,
        pytest.raises(DemoError, match="gpu02: a: unit failed") as caught,
    ):
        await_gates({"gpu02": base}, lambda _: None, patience=0.05, every=0.01)
    assert caught.value.next.startswith(".venv/bin/farrier lab ssh gpu02 -- sudo journalctl")


def test_a_host_without_an_agent_is_named() -> None:
    with answering(b"x") as base:
        pass
    with pytest.raises(DemoError, match=r"gw01: http://127\.0\.0\.1:\d+/status"):
        await_gates({"gw01": base}, lambda _: None, patience=0.05, every=0.01)


def demo_without_tools(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The demo where none of the lab's programs is on PATH: it must end before it begins."""
    return subprocess.run(
        [sys.executable, "-m", "farrier.demo", *arguments],
        cwd=ROOT,
        env={"PATH": "/nonexistent", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_demo_that_cannot_start_says_phase_cause_and_next_command() -> None:
    done = demo_without_tools("--bootstrap-seconds", "3")
    assert done.returncode == 1
    assert "the demo failed in its phase lab:" in done.stdout
    assert "mmdebstrap" in done.stdout
    assert "next: .venv/bin/farrier lab status" in done.stdout
    assert re.search(r"^bootstrap +3\.0$", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout


def test_the_json_form_is_json_also_when_it_fails() -> None:
    done = demo_without_tools("--json")
    assert done.returncode == 1
    result = json.loads(done.stdout)
    assert (result["ok"], result["failed"]["phase"]) == (False, "lab")
    assert "mmdebstrap" in result["failed"]["why"]
    assert [phase["phase"] for phase in result["phases"]] == ["lab"]
