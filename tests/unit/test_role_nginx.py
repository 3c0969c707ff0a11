"""The map from an Authorization header to a key's name, and what a host's site has."""

from __future__ import annotations

import re
from dataclasses import replace

from farrier.spec import AgentSettings, ApiKey, HostSpec, Model
from roles import agent, engine, nginx

TEXTS = {"bob": "Zz_9-aaaaaaaaaaaaaaaaaaa", "alice": "a" * 20}
KEYS = {name: ApiKey.of(name, text) for name, text in TEXTS.items()}


def entries(text: str) -> dict[str, re.Pattern[str]]:
    """A key's name and the expression that nginx (PCRE) compares the header with."""
    found = {}
    for line in text.splitlines():
        if match := re.fullmatch(r'"~(\S+ \S+)" ([a-z0-9-]+);', line):
            found[match[2]] = re.compile(match[1])
    return found


def test_every_key_opens_under_its_own_name() -> None:
    found = entries(nginx.key_map(KEYS))
    assert found.keys() == KEYS.keys()
    for name, key in TEXTS.items():
        assert found[name].search(f"Bearer {key}")
        assert found[name].search(f"bearer {key}")


def test_nothing_else_opens() -> None:
    alice = entries(nginx.key_map(KEYS))["alice"]
    key = TEXTS["alice"]
    for header in (
        "",
        "Bearer ",
        f"Bearer {key}x",
        f"Bearer {key[:-1]}",
        f"Bearer {key.upper()}",
        key,
        f"Basic {key}",
        f"x Bearer {key}",
        f"Bearer  {key}",
    ):
        assert not alice.search(header), header


def test_the_file_does_not_depend_on_the_order_of_the_keys() -> None:
    assert nginx.key_map(KEYS) == nginx.key_map(dict(reversed(KEYS.items())))


def test_no_keys_no_entries() -> None:
    assert entries(nginx.key_map({})) == {}


TINY = Model("tiny", source="path:/srv/models/tiny", gpus=[])
HOST = HostSpec("gpu01", groups=("gpu",), accelerator="cpu", models=(TINY,))


def site(spec: HostSpec) -> str:
    return nginx.site_text(spec, nginx.DEFAULTS.data())


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
