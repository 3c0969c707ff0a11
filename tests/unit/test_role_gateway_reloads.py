"""What a reload changes, what the log and the metrics tell: the gateway in a real HAProxy."""

from __future__ import annotations

import http.client
import threading
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.agent.host import until
from tests.unit.gateway_hosts import Answer, Gateway, Host, key
from tests.unit.gateway_running import TINY, hosts, running, seen

__all__ = ["hosts", "running"]


def test_a_reload_under_load_loses_nothing_and_keeps_the_drained_drained(
    running: Gateway, hosts: list[Host]
) -> None:
    hosts[0].takes = False
    until(lambda: running.servers()["tiny", "gpu01:tiny"] == "DRAIN (agent)")
    hosts[0].takes = None  # the agent hangs
    over = threading.Event()
    kept_alive = 4

    def posts(_: int) -> Counter[int]:
        statuses: Counter[int] = Counter()
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
        headers = {"Authorization": f"Bearer {key('alice').key}"}
        while not over.is_set():
            connection.request("POST", "/v1/chat/completions", b'{"model":"tiny"}', headers)
            answer = connection.getresponse()
            answer.read()
            statuses[answer.status] += 1
        connection.close()
        return statuses

    hosts[1].hold.clear()
    streams = [running.stream() for _ in range(5)]
    hosts[1].hold.set()
    hosts[1].hold.clear()
    with ThreadPoolExecutor(kept_alive) as pool:
        loops = [pool.submit(posts, number) for number in range(kept_alive)]
        hosts[1].hold.set()
        try:
            for _ in range(3):
                before = len(hosts[1].seen)
                running.reload()
                until(lambda: len(hosts[1].seen) >= before + 100)  # noqa: B023
        finally:
            over.set()
        statuses = sum((loop.result() for loop in loops), Counter[int]())
    assert statuses.keys() == {200}
    assert not hosts[0].seen
    assert len(hosts[1].seen) == statuses[200] + len(streams)
    assert all(stream.read().endswith(b"[DONE]\n\n") for stream in streams)


def test_keys_change_with_a_reload_that_drops_nothing(
    running: Gateway, hosts: list[Host], tmp_path: Path
) -> None:
    hosts[0].hold.clear()
    hosts[1].hold.clear()
    stream = running.stream(by="bob")
    keys = (tmp_path / "keys.map").read_text().splitlines()
    keys = [line for line in keys if not line.endswith(" bob")] + [f"{key('erin').sha256} erin"]
    (tmp_path / "keys.map").write_text("\n".join([*keys, ""]))
    allowed = (tmp_path / "allowed.map").read_text()
    (tmp_path / "allowed.map").write_text(f"{allowed}erin|tiny yes\n")
    running.reload()
    for host in hosts:
        host.hold.set()
    assert running.ask(body=TINY, by="erin").status == 200
    assert running.ask(body=TINY, by="bob").status == 401
    assert stream.read().endswith(b"[DONE]\n\n")


def test_a_reload_takes_ports_from_the_configuration(running: Gateway, hosts: list[Host]) -> None:
    hosts[1].takes = False
    until(lambda: running.servers()["tiny", "gpu02:tiny"] == "DRAIN (agent)")
    hosts[1].takes = None
    moved = Host("gpu01")
    text = running.config.read_text()
    for before, after in ((hosts[0].port, moved.port), (hosts[0].check_port, moved.check_port)):
        text = text.replace(str(before), str(after))
    running.config.write_text(text)
    running.reload()
    for _ in range(4):
        assert running.ask(body=TINY).status == 200
    until(lambda: moved.asked)
    assert len(moved.seen) == 4
    assert not hosts[0].seen
    assert not hosts[1].seen, "its state was kept"
    moved.end()


def test_the_log_tells_of_each_request_and_holds_no_key(
    running: Gateway, hosts: list[Host]
) -> None:
    served: list[Answer] = [
        running.ask(body=TINY, X_Request_ID="one"),
        running.ask(body={"model": 'x"y'}, X_Request_ID="two"),
        running.ask('/v1/"quoted"', body=b"", by=None, X_Request_ID="three"),
    ]
    until(lambda: len(running.log()) == 3)
    # each line is written when its request has ended for HAProxy, which is after its client has it
    lines = {line["request_id"]: line for line in running.log()}
    one, two, three = (lines[name] for name in ("one", "two", "three"))
    assert [line["status"] for line in (one, two, three)] == [a.status for a in served]
    assert one.keys() == {
        *("time", "model", "replica", "key", "client", "method", "path", "status", "termination"),
        *("request_ms", "queue_ms", "connect_ms", "first_byte_ms", "first_token_ms", "total_ms"),
        *("bytes", "request_bytes", "retries", "request_id"),
        *("prompt_tokens", "completion_tokens"),
    }
    (name,) = seen(hosts)
    assert (one["model"], one["replica"], one["key"]) == ("tiny", f"{name}:tiny", "alice")
    assert (one["prompt_tokens"], one["completion_tokens"]) == (7, 3)
    assert one["path"] == "/v1/chat/completions"
    assert (two["model"], two["replica"], two["prompt_tokens"]) == ('x"y', "-", -1)
    assert (three["status"], three["key"]) == (401, "-")
    assert str(key("alice").key) not in (running.directory / "log").read_text()


def test_haproxys_own_metrics_have_their_page(running: Gateway) -> None:
    url = f"http://127.0.0.1:{running.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        page = answer.read().decode()
    assert 'haproxy_server_status{proxy="tiny",server="gpu01:tiny",state="UP"} 1' in page
