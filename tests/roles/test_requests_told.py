"""What a host's nginx tells the agent of its requests, in nginx 1.22 (gpu02) and 1.26 (gpu03)."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.roles.fleet import Fleet, until

HOSTS = ("gpu02", "gpu03")
AGENT = "farrier-agent"
NAMES = ("llm_requests_total", "llm_incomplete_", "llm_request_duration_", "llm_time_to_first_")
LINES = "farrier_requests_log_lines_total"


def counted(fleet: Fleet, host: str) -> dict[str, float]:
    """The agent's counts of nginx's requests: by name, and by code or result."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(fleet.metrics(host)):
        for one in family.samples:
            if one.name.startswith((*NAMES, LINES)) and not one.name.endswith("_bucket"):
                word = one.labels.get("code") or one.labels.get("result") or one.labels.get("by")
                found[f"{one.name} {word}" if word else one.name] = one.value
    return found


class Counts:
    """How much more was counted since the last look."""

    def __init__(self, fleet: Fleet, host: str) -> None:
        self._look = partial(counted, fleet, host)
        self._before = self._look()

    def more(self, **wanted: float) -> Mapping[str, float]:
        """Wait until *wanted* requests more were counted, by code, and return all differences."""
        names = {f"llm_requests_total {code[1:]}": count for code, count in wanted.items()}
        until(partial(self._has, names), 15, f"{wanted} are counted")
        after = self._look()
        more = {name: value - self._before.get(name, 0) for name, value in after.items()}
        self._before = after
        return {name: value for name, value in more.items() if value}

    def _has(self, wanted: Mapping[str, float]) -> bool:
        now = self._look()
        return all(
            now.get(name, 0) - self._before.get(name, 0) >= count for name, count in wanted.items()
        )


@pytest.fixture(params=HOSTS)
def host(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[str]:
    """A host that serves, with its stand-in well-mannered again afterwards."""
    name: str = request.param
    until(partial(fleet.gate, name), 60, f"{name} serves")
    # new workers: one that told an agent of before loses its first line to this one
    fleet.root(name, "systemctl reload nginx")
    yield name
    fleet.manners(name, answers="well", token_delay=0.02)
    fleet.root(name, "touch /run/farrier/open/tiny")


SECONDS = "llm_request_duration_seconds"
FIRST = "llm_time_to_first_byte_seconds"
INCOMPLETE = "llm_incomplete_responses_total"


def test_a_whole_answer_is_counted_with_its_times(fleet: Fleet, host: str) -> None:
    counts = Counts(fleet, host)
    assert fleet.chat(host, stream=True, max_tokens=40).status == 200
    more = dict(counts.more(_200=1))
    assert 0.5 < more.pop(f"{SECONDS}_sum") < 10
    assert more.pop(f"{FIRST}_sum", 0.0) < 1
    assert more == {
        "llm_requests_total 200": 1,
        f"{SECONDS}_count": 1,
        f"{FIRST}_count": 1,
        f"{LINES} counted": 1,
    }


def stream(fleet: Fleet, host: str, *, whole: bool) -> bytes:
    """A stream of 100 words, read to its end or left after its first."""
    body = json.dumps({"model": "tiny", "messages": [], "max_tokens": 100, "stream": True})
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: Bearer {fleet.key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    answer = b""
    with socket.create_connection((fleet.addresses[host], 8080), timeout=30) as client:
        client.sendall((head + body).encode())
        while b"data: " not in answer:
            answer += client.recv(65536)
        if not whole:
            return answer
        fleet.manners(host, answers="break")
        while data := client.recv(65536):
            answer += data
    return answer


@pytest.mark.parametrize("whole", [True, False], ids=["its engine breaks off", "its client leaves"])
def test_a_cut_stream_is_incomplete_although_its_status_is_200(
    fleet: Fleet, host: str, whole: bool
) -> None:
    counts = Counts(fleet, host)
    assert b"[DONE]" not in stream(fleet, host, whole=whole)
    more = counts.more(_200=1)
    assert more["llm_requests_total 200"] == 1
    by = "engine" if whole else "client"
    assert {name: n for name, n in more.items() if name.startswith(INCOMPLETE)} == {
        f"{INCOMPLETE} {by}": 1
    }
    assert more[f"{SECONDS}_count"] == 1
    assert more.get(f"{LINES} error", 0) == whole


def test_what_nginx_refuses_is_counted_by_code_and_in_no_histogram(fleet: Fleet, host: str) -> None:
    counts = Counts(fleet, host)
    path = "/replicas/tiny/v1/models"
    assert fleet.request(host, path, key="wrong" * 5).status == 401
    fleet.root(host, "rm /run/farrier/open/tiny")
    assert fleet.request(host, path, key=fleet.key).status == 503
    fleet.root(host, "touch /run/farrier/open/tiny")
    assert fleet.request(host, "/replicas/no-such/v1/models", key=fleet.key).status == 404
    fleet.manners(host, answers="503")
    assert fleet.chat(host).status == 503  # the engine's own: it is in the histograms
    more = dict(counts.more(_401=1, _503=2))
    for name in (SECONDS, FIRST):
        assert more.pop(f"{name}_count") == 1
        assert more.pop(f"{name}_sum", 0.0) < 5
    assert more == {
        "llm_requests_total 401": 1,
        "llm_requests_total 503": 2,
        f"{LINES} counted": 3,
        f"{LINES} other": 1,
    }


def errors(fleet: Fleet, host: str) -> int:
    """Lines of nginx's error log about the agent's socket."""
    log = "/var/log/nginx/error.log"
    return int(fleet.root(host, f"grep -c -e 'connect() failed' -e 'send() failed' {log} || true"))


@pytest.mark.parametrize("how", ["stop", "kill -s KILL"])
def test_nginx_serves_on_without_an_agent_and_tells_the_next_one(
    fleet: Fleet, host: str, how: str
) -> None:
    Counts(fleet, host)
    fleet.chat(host)
    before = errors(fleet, host)
    fleet.root(host, f"systemctl {how} {AGENT}")
    try:
        fleet.root(host, "nginx -t -q")
        alone = [fleet.chat(host).status for _ in range(20)]
    finally:
        fleet.root(host, f"systemctl restart {AGENT}")
    assert alone == [200] * 20
    # a line for a request only while the socket of one that was killed lies there
    noise = errors(fleet, host) - before
    assert noise <= (0 if how == "stop" else 20)
    until(lambda: "llm_requests_total 200" not in counted(fleet, host), 15, "it begins anew")
    # each worker finds out with the first line that it sends, and loses that one
    workers = int(fleet.root(host, "pgrep -c -f 'nginx: worker'"))
    told: Callable[[], bool] = lambda: counted(fleet, host).get("llm_requests_total 200", 0) >= 5  # noqa: E731
    for _ in range(5 + 4 * workers):
        assert fleet.chat(host).status == 200
    until(told, 15, "nginx tells the next agent")
    assert errors(fleet, host) - before - noise <= workers


def test_what_is_told_has_no_path_no_key_and_no_client(fleet: Fleet, host: str) -> None:
    printed = fleet.root(host, "nginx -T 2>/dev/null")
    told = printed.partition("log_format farrier_told")[2].partition(";")[0]
    assert "$farrier_replica" in told
    for private in ("uri", "key", "remote_addr", "authorization", "args", 'request"'):
        assert private not in told
