"""A real HAProxy with the gateway's configuration, on loopback, before stand-ins for hosts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.gateway_hosts import Gateway, Host, gateway, key

__all__ = ["KEYS", "LIMIT", "TINY", "hosts", "running", "seen"]

KEYS = [
    key("alice"),
    key("bob", models=("tiny",)),
    key("carol", requests_per_minute=3),
    key("dave", streams=2),
]
TINY = {"model": "tiny"}
LIMIT = 64 * 1024


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """gpu01 and gpu02 serve tiny, gpu02 a second model."""
    both = [Host("gpu01"), Host("gpu02", models={"tiny": "tiny", "qwen": "Qwen/Qwen3"})]
    yield both
    for one in both:
        one.end()


@pytest.fixture
def running(tmp_path: Path, hosts: list[Host]) -> Iterator[Gateway]:
    """A gateway before them with a small limit of bodies."""
    with gateway(tmp_path, hosts, KEYS, gateway_max_body_kib=LIMIT // 1024) as it:
        it.settled()
        yield it


def seen(hosts: list[Host]) -> Counter[str]:
    """How many requests each host executed."""
    return Counter({host.name: len(host.seen) for host in hosts if host.seen})
