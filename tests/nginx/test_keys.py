"""Keys at a host's own nginx: who is let in, and how far."""

from __future__ import annotations

import secrets
import threading
import time

import pytest

from tests.nginx.site import ALICE, BOB, GATEWAY, Site, error

TEAM = f"sk-{secrets.token_hex(16)}"
KEYS = f"""
[keys]
alice = "{ALICE}"
[keys.bob]
key = "{BOB}"
models = ["tiny"]
streams = 2
[keys.default]
sha256 = "4b9d0a2e6c1cbe9d7ac0a5cbec7cbd1b5e3e7e3e5a1e2b3c4d5e6f708192a3b4"
models = ["tiny"]
requests_per_minute = 1
streams = 1
[keys.team]
key = "{TEAM}"
requests_per_minute = 3
"""
"""``default`` is a word of nginx's maps: it must not become everybody's limits."""
OTHER = "/replicas/other/v1/chat/completions"
TINY = "/replicas/tiny/v1/chat/completions"
HELD = "/run/farrier-test-held"
"""While it is there, the stand-in holds what asks for that."""


@pytest.fixture(scope="module", autouse=True)
def converged(site: Site) -> None:
    """Keys, and a gateway that is not this machine."""
    site.converge(KEYS, nginx_clients="keys", nginx_gateways=["192.0.2.1"])


def bearer(key: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"Authorization": f"{scheme} {key}"}


def test_a_key_opens_by_either_header_and_is_logged_by_its_name(site: Site) -> None:
    for headers in (
        bearer(ALICE),
        bearer(ALICE, "bearer"),
        {"X-API-Key": ALICE},
        {"X-API-Key": ALICE, "Authorization": "Basic YTpi"},
    ):
        assert site.ask(TINY, headers).status == 200
        assert site.logged()[0]["key"] == "alice"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ALICE},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {ALICE}"},
        bearer(ALICE + "x"),
        bearer(ALICE.upper()),
        {"X-API-Key": ALICE[:-1]},
        {**bearer("wrong"), "X-API-Key": ALICE},
        bearer("\xff\xfe"),
        GATEWAY,
    ],
)
def test_nothing_else_opens(site: Site, headers: dict[str, str]) -> None:
    answer = site.ask(TINY, headers)
    assert error(answer) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == 'Bearer realm="farrier"'
    assert site.logged()[0]["key"] == ""


def test_a_hash_is_no_key(site: Site) -> None:
    lines = site.root("cat /etc/nginx/farrier/keys.map").splitlines()
    digests = [line.split()[0] for line in lines if not line.startswith("#")]
    assert len(digests) == 4
    for digest in digests:
        assert site.ask(TINY, bearer(digest)).status == 401


def test_no_key_is_on_the_host(site: Site) -> None:
    for key in (ALICE, BOB, TEAM):
        site.ask(TINY, bearer(key))
    assert site.ask_from_the_host(TINY, bearer(ALICE)) == 200
    everywhere = "/etc /var/log /var/lib/nginx /run /tmp /home"
    keys = f"{ALICE}\n{BOB}\n{TEAM}\n"
    assert site.root(f"grep -rlF -f - {everywhere} || test $? = 1", stdin=keys) == ""
    assert site.root("stat -c %a /etc/nginx/farrier /etc/nginx/farrier/keys.map") == "700\n600\n"


def test_the_engine_gets_no_key(site: Site) -> None:
    for headers in (bearer(ALICE), {"X-API-Key": ALICE}):
        assert ALICE not in site.ask(TINY, headers).text


def test_a_key_for_another_model_is_403_whatever_it_says(site: Site) -> None:
    for more in ({}, GATEWAY, {"X-Model": "tiny"}):
        answer = site.ask(OTHER, {**bearer(BOB), **more})
        assert error(answer) == (403, "model_not_allowed")
        assert site.logged()[0]["key"] == "bob"
    assert site.ask(TINY, bearer(BOB)).status == 200
    assert site.ask(OTHER, bearer(ALICE)).status == 200


def test_a_gateway_s_headers_are_nothing_from_a_client(site: Site) -> None:
    seen = site.ask(TINY, {**bearer(ALICE), **GATEWAY, "X-Forwarded-For": "192.0.2.7"}).json()
    assert seen["headers"]["x-forwarded-for"] == site.here
    assert seen["headers"]["x-request-id"] != "r-1"
    assert not {"x-farrier-server", "x-farrier-key"} & seen["headers"].keys()
    assert site.logged()[0]["key"] == "alice"
    assert site.ask(headers={**bearer(ALICE), **GATEWAY}).status == 404  # it names no replica


def test_a_client_gets_503_and_when_to_come_back_where_a_gateway_gets_425(site: Site) -> None:
    site.close()
    try:
        answer = site.ask(TINY, bearer(ALICE))
        assert error(answer) == (503, "replica_not_ready")
        assert answer.headers["retry-after"] == "5"
    finally:
        site.open()
    site.root("systemctl stop standin@8101")
    try:
        assert error(site.ask(TINY, bearer(ALICE))) == (502, "engine_failed")
    finally:
        site.start()


def test_a_key_has_its_streams_at_once_and_no_more(site: Site) -> None:
    statuses: list[int] = []
    until_let_go = {**bearer(BOB), "X-Hold-While": HELD}
    held = [
        threading.Thread(target=lambda: statuses.append(site.ask(TINY, until_let_go).status))
        for _ in range(2)
    ]
    site.root(f"touch {HELD}")
    try:
        for one in held:
            one.start()
        in_flight = "[ $(ss -Htn state established dport = :8101 | wc -l) = 2 ]"
        site.root(f"timeout 30 sh -c 'until {in_flight}; do sleep 0.1; done'")
        answer = site.ask(TINY, bearer(BOB))
        assert error(answer) == (429, "saturated")
        assert answer.headers["retry-after"] == "1"
        assert "the key may have 2" in answer.json()["error"]["message"]
        assert site.ask(TINY, bearer(ALICE)).status == 200
    finally:
        site.root(f"rm -f {HELD}")
        for one in held:
            one.join()
    assert statuses == [200, 200]
    assert site.ask(TINY, bearer(BOB)).status == 200


def test_a_key_has_its_requests_a_minute_and_is_told_when_there_are_more(site: Site) -> None:
    site.root("systemctl restart nginx")  # a full bucket, whatever was asked before
    began = time.monotonic()
    answers = [site.ask(OTHER, bearer(TEAM)) for _ in range(4)]
    assert time.monotonic() - began < 20
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert error(answers[3]) == (429, "rate_limit_exceeded")
    assert answers[3].headers["retry-after"] == "20"
    assert [site.ask(OTHER, bearer(ALICE)).status for _ in range(5)] == [200] * 5


def test_a_refusal_at_the_gate_uses_up_no_request(site: Site) -> None:
    site.root("systemctl restart nginx")
    site.close("other")
    assert [site.ask(OTHER, bearer(TEAM)).status for _ in range(5)] == [503] * 5
    site.open()
    assert [site.ask(OTHER, bearer(TEAM)).status for _ in range(3)] == [200] * 3


def test_a_key_that_was_taken_away_is_refused_once_the_converge_is_over(site: Site) -> None:
    assert site.ask(TINY, bearer(TEAM)).status in {200, 429}
    try:
        site.converge(f'[keys]\nalice = "{ALICE}"\n', nginx_clients="keys")
        assert site.ask(TINY, bearer(TEAM)).status == 401
        assert site.ask(TINY, bearer(ALICE)).status == 200
    finally:
        site.converge(KEYS, nginx_clients="keys", nginx_gateways=["192.0.2.1"])


def test_a_gateway_passes_without_a_key_and_beside_every_limit(site: Site) -> None:
    site.converge(KEYS, nginx_clients="keys", nginx_gateways=[site.here])
    try:
        assert site.ask(headers=GATEWAY).status == 200
        assert site.logged()[0]["key"] == "carol"
        # a client's key that comes through a gateway is the gateway's to check
        headers = {**GATEWAY, **bearer(TEAM), "X-Farrier-Key": "team"}
        assert [site.ask(headers=headers).status for _ in range(5)] == [200] * 5
        assert site.ask_from_the_host(TINY) == 401
        assert site.ask_from_the_host(TINY, bearer(ALICE)) == 200
    finally:
        site.converge(KEYS, nginx_clients="keys", nginx_gateways=["192.0.2.1"])
