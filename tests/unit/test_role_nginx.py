"""The map from an Authorization header to a key's name."""

from __future__ import annotations

import re

from roles import nginx

KEYS = {"bob": "Zz_9-aaaaaaaaaaaaaaaaaaa", "alice": "a" * 20}


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
    for name, key in KEYS.items():
        assert found[name].search(f"Bearer {key}")
        assert found[name].search(f"bearer {key}")


def test_nothing_else_opens() -> None:
    alice = entries(nginx.key_map(KEYS))["alice"]
    key = KEYS["alice"]
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
