"""The hosts' nginx as it runs: nothing in it may weaken the gate or hide a request in flight."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import pytest

from tests.roles.fleet import Fleet, until
from tests.roles.nginx_config import parse, weaknesses

GPU_HOSTS = ("gpu01", "gpu02", "gpu03")


@pytest.mark.parametrize("host", GPU_HOSTS)
def test_nothing_is_set_that_would_break_a_drain(fleet: Fleet, host: str) -> None:
    root = parse(fleet.root(host, "nginx -T 2>/dev/null"))
    assert weaknesses(root, {8101: "tiny"}) == []
    ways = [block for block in root.all() if block.own("proxy_pass")]
    assert [str(way) for way in ways] == ["location ^~ /replicas/tiny/v1/", "location ^~ /v1/"]
    for way in ways:
        steps = [
            block.directives[0] if (block := way.blocks[int(what[0])]) else ()
            for name, *what in way.directives
            if name == "{"
        ]
        assert steps == [("return", "471"), ("return", "470")]  # the key, then the gate


BROKEN = {
    "http {|http { open_file_cache max=9;": None,  # what is nearer is right
    "open_file_cache off|open_file_cache max=1000": "open_file_cache max=1000",
    "proxy_request_buffering off|proxy_request_buffering on": "proxy_request_buffering on",
    "proxy_buffering off;|": "proxy_buffering on",
    "proxy_next_upstream off;|": "proxy_next_upstream error timeout",
    "Connection close|Connection keep-alive": "no `Connection close`",
    "limit_conn farrier|proxy_set_header X-Y z; limit_conn farrier": "no `Connection close`",
    "server_name _;|server_name _; mirror /v1/;": "mirror /v1/",
    "server_name _;|server_name _; lingering_close off;": "lingering_close off",
    "proxy_intercept_errors on;|": "proxy_intercept_errors off",
    "server {|upstream warm { server 127.0.0.1:8101; keepalive 4; } server {": None,
    "proxy_pass http://127.0.0.1:8101|proxy_pass http://$http_x_engine": "gate of ?",
    "if (!-f /run/farrier/open/tiny) { return 470; }|": "the gate of tiny",
    "open/tiny) { return 470; }|open/other) { return 470; }": "the gate of tiny",
    "location / {|location /raw/ { proxy_pass http://127.0.0.1:8101/; } location / {": "the gate",
    "user www-data|user games": "user is not www-data",
    "events {|worker_shutdown_timeout 5s; events {": "worker_shutdown_timeout",
}
"""Changes of a host's configuration, and what is then found on the ways to its engine."""


@pytest.mark.parametrize("change", BROKEN)
def test_a_configuration_that_would_break_a_drain_is_found(fleet: Fleet, change: str) -> None:
    """nginx itself accepts each of them."""
    wanted = BROKEN[change]
    before, after = (re.sub(r"([.*$&|\[\]])", r"\\\1", part) for part in change.split("|"))
    broken = "/run/broken"
    files = f"{broken}/nginx.conf {broken}/conf.d/farrier.conf"
    copy = f"rm -rf {broken}; cp -a /etc/nginx {broken}; sed -i s,/etc/nginx,{broken},g {files}"
    change = f'sed -i "s|{before}|{after}|g" {files}'
    printed = fleet.root("gpu03", f"{copy}; {change}; nginx -T -c {broken}/nginx.conf 2>/dev/null")
    found = weaknesses(parse(printed), {8101: "tiny"})
    if wanted is None:
        assert found == []
    else:
        assert found
        assert [one for one in found if wanted not in one] == []


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
