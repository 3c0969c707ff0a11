"""The agent as a program: its pages, its command line, what it tells systemd."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from farrier_agent.notify import watchdog_seconds

from tests.agent.host import FAKES, PROMPT, Host, free_port, replica, until
from tests.agent.manager import Manager

EMPTY_SYSTEMD = 'raise ImportError("No module named systemd")\n'


@pytest.fixture
def running(host: Host) -> Host:
    host.configure()
    host.start()
    until(lambda: host.get("/readyz")[0] == 200)
    return host


# -- pages -----------------------------------------------------------------------------------


def test_pages(running: Host) -> None:
    code, _, headers = running.get("/metrics")
    assert code == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert json.loads(running.get("/livez")[1]) == {"alive": True}
    assert json.loads(running.get("/readyz")[1]) == {"ready": True, "reasons": []}
    assert running.get("/metrics?name[]=x")[0] == 200
    code, head, headers = running.get("/status", method="HEAD")
    assert (code, head) == (200, b"")
    assert int(headers["content-length"]) > 100


@pytest.mark.parametrize("path", ["/", "/metrics/", "/..%2f..%2fetc/passwd", "/%ff%00"])
def test_an_unknown_path_is_404_with_the_known_ones(running: Host, path: str) -> None:
    code, body, _ = running.get(path)
    assert code == 404
    assert json.loads(body)["paths"] == ["/livez", "/metrics", "/readyz", "/status"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed_over_http(running: Host, method: str) -> None:
    code, _, headers = running.get("/status", method=method)
    assert code == 405
    assert headers["allow"] == "GET, HEAD"


def say(host: Host, data: bytes) -> socket.socket:
    one = socket.create_connection(("127.0.0.1", host.port), timeout=30)
    one.sendall(data)
    return one


def read_all(one: socket.socket) -> bytes:
    parts = []
    while part := one.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_a_request_head_without_end_is_refused(running: Host) -> None:
    with say(running, b"GET / HTTP/1.1\r\nx: " + b"y" * 40_000) as one:
        assert read_all(one).startswith(b"HTTP/1.1 400")
    assert running.get("/livez")[0] == 200


def test_clients_that_never_finish_are_put_out(running: Host) -> None:
    upload = b"POST /status HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nabc"
    begun = time.monotonic()
    with (
        say(running, b"") as silent,
        say(running, b"GET /metr") as half,
        say(running, upload) as up,
    ):
        assert read_all(silent) == b""
        assert read_all(half) == b""
        assert read_all(up).startswith(b"HTTP/1.1 405")
    assert time.monotonic() - begun < 20


def test_the_oldest_of_too_many_that_say_nothing_makes_room(running: Host) -> None:
    with ExitStack() as stack:
        oldest = stack.enter_context(say(running, b"GET /metr"))
        for _ in range(64):
            stack.enter_context(say(running, b"GET /metr"))
        with say(running, b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n") as one:
            assert read_all(one).startswith(b"HTTP/1.1 200")
        begun = time.monotonic()
        with suppress(ConnectionError):
            assert read_all(oldest) == b""
        assert time.monotonic() - begun < PROMPT, "it is put out before its time"
    assert "Exceeded" not in running.log()


# -- systemd ---------------------------------------------------------------------------------


def test_systemd_hears_ready_watchdog_and_stopping(host: Host) -> None:
    host.configure(tick=5)
    with Manager(host.root / "notify") as manager:
        module = str(FAKES / "systemd_module")
        host.start(NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="900000", PYTHONPATH=module)
        heard = [manager.next() for _ in range(8)]
        assert "READY=1" in heard
        # the watchdog wants a word every 0.9 s, so it gets three: the tick of 5 s is too slow
        begun = time.monotonic()
        for _ in range(6):
            assert manager.next() == "WATCHDOG=1"
        assert time.monotonic() - begun < PROMPT
        host.stop()
        assert manager.rest()[-1] == "STOPPING=1"


def test_the_watchdog_is_fed_while_nvml_hangs(host: Host) -> None:
    host.nvml("count 1\nhang.nvmlInit 600000")
    host.configure(accelerator="cuda")
    with Manager(host.root / "notify") as manager:
        module = str(FAKES / "systemd_module")
        host.start(NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="1500000", PYTHONPATH=module)
        until(lambda: any("NVML hangs" in reason for reason in host.reasons()))
        for _ in range(10):
            manager.until("WATCHDOG=1", 10)


def test_without_the_module_the_agent_says_so_and_serves(host: Host) -> None:
    (host.root / "systemd.py").write_text(EMPTY_SYSTEMD)
    host.configure()
    host.start(NOTIFY_SOCKET=str(host.root / "notify"), PYTHONPATH=str(host.root))
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.log().count("apt-get install python3-systemd") == 1


def test_outside_systemd_nothing_is_said_about_it(running: Host) -> None:
    assert "NOTIFY_SOCKET" not in running.log()


def test_a_watchdog_of_another_process_is_not_ours() -> None:
    assert watchdog_seconds({"WATCHDOG_USEC": "30000000"}) == 30
    assert watchdog_seconds({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_seconds({"WATCHDOG_USEC": "0"}) is None
    assert watchdog_seconds({}) is None


def test_journal_lines_carry_their_priority(host: Host) -> None:
    host.configure()
    host.start(JOURNAL_STREAM="8:1")
    assert "<6>this host has no GPU" in host.log()


# -- the command line ------------------------------------------------------------------------


def test_version(host: Host) -> None:
    result = host.command("version")
    assert result.returncode == 0
    assert result.stdout.startswith("farrier-agent 0.")


@pytest.mark.parametrize("arguments", [(), ("stats",), ("run", "--conf", "x"), ("check-config",)])
def test_wrong_usage_is_2(host: Host, arguments: tuple[str, ...]) -> None:
    result = host.command(*arguments)
    assert result.returncode == 2
    assert "usage: farrier-agent" in result.stderr


def test_check_config(host: Host) -> None:
    host.configure(replica())
    result = host.command("check-config", str(host.config_path))
    assert result.returncode == 0
    assert "host gpu01, 1 replica" in result.stdout
    host.config_path.write_text(host.config_path.read_text().replace("port =", "prt ="))
    result = host.command("check-config", str(host.config_path))
    assert result.returncode == 1
    assert str(host.config_path) in result.stderr
    assert "$.replicas[0]" in result.stderr


@pytest.mark.parametrize("command", ["run", "status"])
def test_a_config_that_is_not_there(host: Host, command: str) -> None:
    result = host.command(command, f"--config={host.root / 'none.toml'}")
    assert result.returncode == 1
    assert f"{host.root / 'none.toml'}: No such file" in result.stderr
    assert "Traceback" not in result.stderr


def test_status_without_an_agent_says_what_to_do(host: Host) -> None:
    host.configure()
    result = host.command("status", f"--config={host.config_path}")
    assert result.returncode == 1
    assert "systemctl status farrier-agent" in result.stderr


def test_status_shows_replicas(host: Host) -> None:
    port = free_port()
    host.configure(replica(port=port))
    host.unit("engine-tiny.service", run=1)
    host.engine(port, "tiny")
    host.start()
    until(lambda: host.get("/readyz")[0] == 200)
    result = host.command("status", f"--config={host.config_path}")
    assert result.returncode == 0
    head, row = (
        line for line in result.stdout.splitlines() if line.startswith(("REPLICA ", "tiny "))
    )
    shown = dict(zip(head.replace("IN FLIGHT", "IN-FLIGHT").split(), row.split(), strict=True))
    assert (shown["REPLICA"], shown["MODEL"], shown["ENGINE"]) == ("tiny", "tiny", "vllm")
    assert (shown["UP"], shown["GATE"], shown["RESTART"]) == ("yes", "open", "?")


def test_a_port_that_is_taken_is_named(running: Host, tmp_path: Path) -> None:
    result = running.command("run", f"--config={running.config_path}")
    assert result.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {running.port}: Address already in use" in (
        result.stderr
    )
    assert "Traceback" not in result.stderr
