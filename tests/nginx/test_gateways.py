"""What a gateway gets from a host's nginx, and what everybody else gets there."""

from __future__ import annotations

import socket
from http.client import HTTPConnection

import pytest

from tests.nginx.site import GATEWAY, MODELS, Site, error


@pytest.fixture(scope="module", autouse=True)
def converged(site: Site) -> None:
    """This machine is the host's gateway."""
    site.converge(nginx_clients="gateways", nginx_gateways=[site.here], nginx_max_body="2m")


def test_a_gateway_names_the_replica_in_a_header(site: Site) -> None:
    for server, port in (("gpu01:tiny", 8101), ("a-name:other", 8102)):
        answer = site.ask(headers={**GATEWAY, "X-Farrier-Server": server})
        assert answer.status == 200
        assert answer.json()["path"] == "/v1/chat/completions"
        assert answer.json()["headers"]["host"] == site.address
        assert answer.json()["port"] == port
        assert site.logged()[0]["replica"] == server.partition(":")[2]


def test_the_engine_gets_the_request_s_id_and_none_of_the_gateway_s_words(site: Site) -> None:
    secrets = {"Authorization": "Bearer abc", "X-API-Key": "abc"}
    others = {"X-Forwarded-For": "192.0.2.7", "X-Conversation-Id": "c"}
    seen = site.ask(headers={**GATEWAY, **secrets, **others}).json()["headers"]
    assert seen["x-request-id"] == "r-1"
    assert seen["x-forwarded-for"] == f"192.0.2.7, {site.here}"
    assert seen["connection"] == "close"
    assert not {"authorization", "x-api-key", "x-farrier-server", "x-farrier-key"} & seen.keys()
    # without it no engine generates on for a client that left
    assert "x-conversation-id" not in seen


def test_the_log_names_the_client_s_key_and_the_request(site: Site) -> None:
    site.ask(headers=GATEWAY)
    line = site.logged()[0]
    assert (line["key"], line["request_id"], line["replica"]) == ("carol", "r-1", "tiny")
    assert (line["status"], line["client"]) == (200, site.here)


@pytest.mark.parametrize("wrong", ["", "Carol Smith", "x" * 64, 'a"b'])
def test_a_key_s_name_that_is_none_is_not_logged(site: Site, wrong: str) -> None:
    site.ask(headers={**GATEWAY, "X-Farrier-Key": wrong})
    assert site.logged()[0]["key"] == "-"


@pytest.mark.parametrize("wrong", ["", "a b", "x" * 129])
def test_a_request_without_a_usable_id_gets_one(site: Site, wrong: str) -> None:
    seen = site.ask(headers={**GATEWAY, "X-Request-ID": wrong}).json()["headers"]
    assert len(seen["x-request-id"]) == 32
    assert site.logged()[0]["request_id"] == seen["x-request-id"]


def test_a_closed_gate_is_425_and_nothing_is_executed(site: Site) -> None:
    site.close()
    try:
        assert error(site.ask(headers=GATEWAY)) == (425, "replica_not_ready")
        assert site.logged()[0]["engine_status"] == ""
        assert site.ask(headers={**GATEWAY, "X-Farrier-Server": "gpu01:other"}).status == 200
    finally:
        site.open()


@pytest.mark.parametrize("server", ["gpu01:elsewhere", "gpu01:v1"])
def test_a_replica_that_is_not_here_is_425(site: Site, server: str) -> None:
    answer = site.ask(headers={**GATEWAY, "X-Farrier-Server": server})
    assert error(answer) == (425, "replica_not_ready")


def test_a_gateway_that_names_no_replica_is_told_the_paths(site: Site) -> None:
    for server in ("", "tiny", "gpu01:", "gpu01:../x"):
        headers = {**GATEWAY, "X-Farrier-Server": server}
        assert error(site.ask(headers=headers)) == (404, "not_found")
    assert site.ask("/replicas/tiny/v1/models", method="GET").status == 200


def test_a_refused_connection_is_425(site: Site) -> None:
    site.root("systemctl stop standin@8101")
    try:
        assert error(site.ask(headers=GATEWAY)) == (425, "engine_unreachable")
    finally:
        site.start()


def test_a_connection_that_nobody_takes_is_425(site: Site) -> None:
    """An engine whose queue of connections is full: its host's kernel drops what comes."""
    site.root("systemctl stop standin@8101")
    program = (
        "import socket, time; s = socket.create_server(('127.0.0.1', 8101), backlog=0);"
        " held = [socket.socket() for _ in range(4)];"
        " [c.setblocking(False) or c.connect_ex(('127.0.0.1', 8101)) for c in held];"
        " time.sleep(60)"
    )
    site.root(f'systemd-run -q --unit=deaf python3 -c "{program}"')
    try:
        site.root("until ss -Htn state syn-sent dport = :8101 | grep -q .; do :; done")
        assert error(site.ask(headers=GATEWAY)) == (425, "engine_unreachable")
    finally:
        site.root("systemctl stop deaf")
        site.start()


def test_a_connection_that_breaks_once_it_was_taken_is_502(site: Site) -> None:
    answer = site.ask(headers={**GATEWAY, "X-Answer": "break"})
    assert error(answer) == (502, "engine_failed")


@pytest.mark.parametrize("status", [425, 470, 502])
def test_no_status_of_the_engine_is_taken_for_the_gate_s(site: Site, status: int) -> None:
    answer = site.ask(headers={**GATEWAY, "X-Answer": str(status)})
    assert error(answer) == (502, "engine_failed")
    assert site.logged()[0]["engine_status"] == str(status)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
def test_what_engines_answer_reaches_the_gateway_in_their_words(site: Site, status: int) -> None:
    answer = site.ask(headers={**GATEWAY, "X-Answer": str(status)})
    assert (answer.status, answer.text) == (status, "the engine's own words")


def test_others_are_refused_whatever_they_say(site: Site) -> None:
    assert site.ask_from_the_host() == 403
    for path in ("/replicas/tiny/v1/models", "/nothing", "/"):
        assert site.ask_from_the_host(path, GATEWAY) == 403
    line = site.logged()[0]
    assert (line["key"], line["replica"]) == ("-", "")
    assert line["request_id"] != "r-1"


def test_nginx_says_that_it_is_alive_to_gateways_and_to_its_own_host(site: Site) -> None:
    site.close()
    try:
        answer = site.ask("/farrier-alive", method="GET")
        assert (answer.status, answer.text) == (200, "ok\n")
        assert site.ask_from_the_host("/farrier-alive") == 200
    finally:
        site.open()


@pytest.mark.parametrize("size", [10, 100_000, 1_500_000])
def test_a_425_leaves_its_connection_fit_for_the_next_request(site: Site, size: int) -> None:
    """The refused body is read away: the next answer is the next request's."""
    body = b"x" * size
    connection = HTTPConnection(site.address, 8080, timeout=30)
    try:
        for _ in range(3):
            site.close()
            assert site.ask(headers=GATEWAY, body=body, connection=connection).status == 425
            site.open()
            answer = site.ask(headers=GATEWAY, body=body, connection=connection)
            assert (answer.status, answer.json()["body"]) == (200, size)
    finally:
        site.open()
        connection.close()


def test_a_425_arrives_while_its_body_is_still_on_the_way(site: Site) -> None:
    site.close()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Farrier-Server: gpu01:tiny\r\n"
        "Content-Length: 1000000\r\n\r\n"
    )
    try:
        with socket.create_connection((site.address, 8080), timeout=30) as client:
            client.sendall(head.encode() + b"x" * 1000)
            assert client.recv(65536).startswith(b"HTTP/1.1 425 ")
            client.sendall(b"x" * 999_000)  # neither reset nor refused
            site.open()
            client.sendall(head.replace("1000000", "2").encode() + b"{}")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    finally:
        site.open()


def test_a_body_over_the_limit_is_413(site: Site) -> None:
    assert error(site.ask(headers=GATEWAY, body=b"x" * 2_200_000)) == (413, "request_too_large")


def test_a_host_with_one_replica_serves_a_gateway_that_names_none(site: Site) -> None:
    site.converge(models=MODELS[:1], nginx_clients="gateways", nginx_gateways=[site.here])
    try:
        assert site.ask().status == 200
        assert site.ask(headers=GATEWAY).status == 200
        assert site.ask(headers={**GATEWAY, "X-Farrier-Server": "gpu01:other"}).status == 425
        assert site.ask_from_the_host() == 403
    finally:
        site.converge(nginx_clients="gateways", nginx_gateways=[site.here], nginx_max_body="2m")
