"""Whom a host's nginx lets in, and what its site has."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from farrier.spec import AgentSettings, ApiKey, HostSpec, Model
from roles import agent, engine, nginx
from roles.nginx.clients import Clients, ModelsBarred, Rate, Streams, clients, key_map

TINY = Model("tiny", source="path:/srv/models/tiny", gpus=[])
HOST = HostSpec("gpu01", groups=("gpu",), accelerator="cpu", models=(TINY,))


GATEWAYS = (
    HostSpec("gw01", groups=("gateway",), address="198.18.0.5"),
    HostSpec("gw02", groups=("gateway",), address="gw02.example.com"),
)
KEYS = {
    key.name: key
    for key in (
        ApiKey.of("bob", "b" * 20, models=("tiny",), requests_per_minute=60, streams=4),
        ApiKey.of("alice", "a" * 20),
        ApiKey("carol", "c" * 64, models=("other",), requests_per_minute=60, streams=1),
    )
}


def let_in(spec: HostSpec, gateways: Sequence[HostSpec] = (), **data: Any) -> Clients:
    return clients(spec, nginx.DEFAULTS.data() | data, gateways)


def site(spec: HostSpec) -> str:
    return nginx.site_text(spec, nginx.DEFAULTS.data(), let_in(spec))


def test_where_the_fleet_has_gateways_they_alone_are_let_in() -> None:
    spec = replace(HOST, api_keys=KEYS)
    assert let_in(spec, GATEWAYS) == Clients(
        addresses=("198.18.0.5",), names=("gw02.example.com",), gateways_only=True
    )
    assert let_in(replace(HOST, open_access=True), GATEWAYS).gateways_only


def test_without_a_gateway_keys_are_asked_for_unless_the_inventory_says_that_nobody_asks() -> None:
    found = let_in(replace(HOST, api_keys=KEYS))
    assert (found.gateways_only, found.keys, found.addresses) == (False, True, ())
    assert let_in(replace(HOST, open_access=True)) == Clients()


def test_no_keys_let_nobody_in() -> None:
    assert let_in(HOST).keys


def test_the_inventory_may_ask_for_keys_beside_gateways() -> None:
    found = let_in(replace(HOST, api_keys=KEYS), GATEWAYS, nginx_clients="keys")
    assert (found.gateways_only, found.keys) == (False, True)
    assert found.addresses == ("198.18.0.5",)


def test_a_host_that_is_its_own_gateway_asks_itself_by_loopback() -> None:
    both = HostSpec("box", groups=("gpu", "gateway"), address="198.18.0.9", models=(TINY,))
    assert let_in(both, [both]).addresses == ("198.18.0.9", "127.0.0.1", "::1")
    assert "127.0.0.1" not in let_in(HOST, [both]).addresses


def test_more_addresses_count_as_gateways_where_the_inventory_says() -> None:
    found = let_in(HOST, GATEWAYS[:1], nginx_gateways=["198.51.100.0/28", "198.18.0.5"])
    assert found.addresses == ("198.51.100.0/28", "198.18.0.5")


def test_limits_are_gathered_by_their_number() -> None:
    other = Model("other", source="path:/srv/models/other", gpus=[], port=8102)
    found = let_in(replace(HOST, models=(TINY, other), api_keys=KEYS))
    assert found.rates == (Rate(60, ("bob", "carol")),)
    assert found.streams == (Streams(1, ("carol",)), Streams(4, ("bob",)))
    assert found.barred == (ModelsBarred("tiny", ("carol",)), ModelsBarred("other", ("bob",)))


def test_a_key_s_models_are_served_names_not_replicas() -> None:
    named = Model("Org/Tiny", replica="tiny", source="path:/srv/models/tiny", gpus=[])
    keys = {"a": ApiKey.of("a", "a" * 20, models=("tiny",))}
    found = let_in(replace(HOST, models=(named,), api_keys=keys))
    assert found.barred == (ModelsBarred("tiny", ("a",)),)


def test_who_is_refused_for_its_rate_is_told_when_to_come_back() -> None:
    assert [Rate(limit, ()).retry_after for limit in (1, 7, 60, 61, 1_000_000)] == [60, 9, 1, 1, 1]


def test_the_host_gets_hashes_and_no_key() -> None:
    lines = key_map(KEYS).splitlines()
    assert f"{hashlib.sha256(b'a' * 20).hexdigest()} alice;" in lines
    assert f"{'c' * 64} carol;" in lines
    assert len(lines) == 1 + len(KEYS)
    assert "a" * 20 not in key_map(KEYS)
    assert key_map(KEYS) == key_map(dict(reversed(KEYS.items())))


def test_the_agent_is_told_of_requests_where_its_configuration_says() -> None:
    wanted = agent.agent_config(
        HOST, agent.DEFAULTS.data(), {"tiny": "a" * 64}, engine.DEFAULTS.data(), gateways=False
    ).requests_socket
    assert wanted is not None
    told = site(HOST)
    assert f"if (-x {wanted}) {{ set $farrier_told 1; }}" in told
    assert f"access_log syslog:server=unix:{wanted},nohostname,tag=farrier farrier_told if=" in told
    assert f"error_log syslog:server=unix:{wanted},nohostname,tag=farrier_error error;" in told


def test_nobody_is_told_where_nobody_counts() -> None:
    off = replace(HOST, agent=AgentSettings(collectors_off=("requests",)))
    for spec in (off, replace(HOST, models=())):
        assert "syslog" not in site(spec)
        assert "farrier_told" not in site(spec)
        assert "access_log /var/log/nginx/farrier-access.log farrier_json;" in site(spec)


def test_nothing_of_an_engine_but_its_v1_is_passed_on() -> None:
    """Ollama's /api/pull, /api/delete and /debug/pprof are on the port of its /v1."""
    source = f"ollama:qwen3:8b@{'ab' * 32}"
    model = Model("qwen", engine="ollama", source=source, gpus=[0], port=8105)
    text = site(HostSpec("gpu01", groups=("gpu",), models=(model,), open_access=True))
    passed = [part for part in text.split("location ") if "proxy_pass" in part]
    assert [part.partition("{")[0].strip() for part in passed[:2]] == [
        "^~ /replicas/qwen/v1/",
        "^~ /v1/",
    ]
    assert len(passed) == 2
