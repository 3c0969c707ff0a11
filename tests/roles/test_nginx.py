"""The hosts' nginx as it runs: nothing in it may weaken the gate or hide a request in flight."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import pytest

from tests.roles.fleet import Fleet, until

GPU_HOSTS = ("gpu01", "gpu02", "gpu03")


def directives(configuration: str) -> Iterator[tuple[str, str]]:
    """Name and arguments of every directive of ``nginx -T``, without comments and quoted text."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "QUOTED", re.sub(r"(?m)^\s*#.*$", "", configuration))
    for statement in re.split(r"[;{}]", bare):
        name, _, arguments = statement.strip().partition(" ")
        if name:
            yield name, " ".join(arguments.split())


@pytest.mark.parametrize("host", GPU_HOSTS)
def test_nothing_is_set_that_would_break_the_gate(fleet: Fleet, host: str) -> None:
    found: dict[str, set[str]] = {}
    for name, arguments in directives(fleet.root(host, "nginx -T 2>/dev/null")):
        found.setdefault(name, set()).add(arguments)
    # a cached look at the gate's file keeps a closed gate open
    assert found["open_file_cache"] == {"off"}
    # a buffered upload is no socket to the engine: it would arrive after the drain
    assert found["proxy_request_buffering"] == {"off"}
    # an idle kept connection would count as a request in flight
    assert "upstream" not in found
    assert "keepalive" not in found
    assert "Connection close" in found["proxy_set_header"]
    # what broke on the way may have been executed
    assert found["proxy_next_upstream"] == {"off"}
    assert found["proxy_buffering"] == {"off"}
    assert found["gzip"] == {"off"}
    assert "proxy_cache" not in found
    # every way to an engine passes its gate
    text = fleet.root(host, "cat /etc/nginx/conf.d/farrier.conf")
    ways = re.findall(r"location [^{]*\{[^}]*(?:\{[^}]*\}[^}]*)*proxy_pass[^}]*\}", text)
    assert len(ways) == text.count("proxy_pass") == 2
    for way in ways:
        key, gate, engine = (
            way.index(part) for part in ("return 401", "-f /run/farrier/open/tiny", "proxy_pass")
        )
        assert key < gate < engine


def in_flight(fleet: Fleet, host: str) -> int:
    """The sockets that nginx, by its user, holds towards the engine's port."""
    nginx = fleet.ssh(host, "id -u www-data").strip()
    states = "state established state close-wait state syn-sent"
    sockets = fleet.root(host, f"ss -Htne {states} '( dport = :8101 )'")
    return sum(f"uid:{nginx}" in line.split() for line in sockets.splitlines())


@pytest.fixture
def upload(fleet: Fleet) -> Iterator[tuple[socket.socket, bytes]]:
    """A POST to gpu03 whose body is half sent, and the half that is to come."""
    body = json.dumps(
        {"model": "tiny", "messages": [{"role": "user", "content": "x" * 4000}], "max_tokens": 2}
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: gpu03\r\nConnection: close\r\n"
        f"Authorization: Bearer {fleet.key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    until(lambda: in_flight(fleet, "gpu03") == 0, 10, "nothing else in flight")
    with socket.create_connection((fleet.addresses["gpu03"], 8080), timeout=30) as client:
        client.sendall(head.encode() + body[:2000])
        yield client, body[2000:]


def test_a_slow_upload_is_in_flight_and_outlives_its_gate(
    fleet: Fleet, upload: tuple[socket.socket, bytes]
) -> None:
    client, rest = upload
    until(lambda: in_flight(fleet, "gpu03") == 1, 5, "the half-sent request is seen")
    fleet.root("gpu03", "rm /run/farrier/open/tiny")
    try:
        assert fleet.chat("gpu03").status == 503
        assert in_flight(fleet, "gpu03") == 1
        client.sendall(rest)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 ")
    finally:
        fleet.root("gpu03", "touch /run/farrier/open/tiny")
    until(lambda: in_flight(fleet, "gpu03") == 0, 5, "its socket is gone")


def test_a_client_that_hangs_up_half_way_leaves_nothing_in_flight(
    fleet: Fleet, upload: tuple[socket.socket, bytes]
) -> None:
    client, _ = upload
    until(lambda: in_flight(fleet, "gpu03") == 1, 5, "the half-sent request is seen")
    client.close()
    until(lambda: in_flight(fleet, "gpu03") == 0, 10, "its socket is gone")


@pytest.mark.parametrize(("cut", "completion"), [(False, "OK"), (True, "")])
def test_the_log_tells_a_cut_stream_from_a_whole_one_and_names_the_key(
    fleet: Fleet, cut: bool, completion: str
) -> None:
    log = "/var/log/nginx/farrier-access.log"
    body = json.dumps({"model": "tiny", "messages": [], "max_tokens": 100, "stream": True})
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gpu02\r\nConnection: close\r\n"
        f"Authorization: Bearer {fleet.key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    before = int(fleet.root("gpu02", f"wc -l < {log}"))
    with socket.create_connection((fleet.addresses["gpu02"], 8080), timeout=30) as client:
        client.sendall((head + body).encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        while not cut and client.recv(65536):
            pass
    line = until(lambda: fleet.root("gpu02", f"tail -n +{before + 1} {log}"), 10, "it is logged")
    entry = json.loads(line)
    assert (entry["status"], entry["completion"]) == (200, completion)
    assert (entry["replica"], entry["key"]) == ("tiny", "demo")
    assert fleet.key not in fleet.root("gpu02", "cat /var/log/nginx/*.log")


def test_a_reload_has_taken_effect_when_it_returns(fleet: Fleet) -> None:
    site = "/etc/nginx/conf.d/zz-test.conf"
    script = f"""set -eu
for number in $(seq 10); do
    echo "server {{ listen 127.0.0.1:8999; return 200 $number; }}" > {site}
    systemctl reload nginx
    curl -sS http://127.0.0.1:8999/
    echo
done
"""
    try:
        assert fleet.root("gpu01", script).split() == [str(number) for number in range(1, 11)]
    finally:
        fleet.root("gpu01", f"rm -f {site}; systemctl reload nginx")


def test_a_reload_that_nginx_cannot_follow_fails(fleet: Fleet) -> None:
    """nginx -t does not see that a port is taken, and `nginx -s reload` does not hear of it."""
    site = "/etc/nginx/conf.d/zz-test.conf"
    taken = fleet.ssh("gpu01", "ss -Hltn 'sport = :22' | awk '{print $4}' | head -n 1").strip()
    assert taken.endswith(":22")
    try:
        said = fleet.root(
            "gpu01",
            f"echo 'server {{ listen {taken}; }}' > {site}; nginx -t -q && echo good;"
            " systemctl reload nginx || echo refused; journalctl -u nginx -n 20 -o cat",
            check=False,
        )
        assert said.startswith("good\nrefused\n"), said
        assert "did not take its new configuration" in said
        assert "Address already in use" in said
        assert fleet.chat("gpu01").status == 200
    finally:
        fleet.root("gpu01", f"rm -f {site}; systemctl reload nginx")
