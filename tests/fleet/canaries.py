"""What tests of canaries share: new versions of *tiny*, a load that soon shows them, shares."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farrier.load import Plan
from tests.fleet.rolling import rollout
from tests.fleet.site import TINY, Site
from tests.roles.fleet import until

__all__ = [
    "BUSY",
    "GOOD",
    "SHARE",
    "SLOW",
    "configurations",
    "no_share_is_left",
    "put_back",
    "shares",
    "to",
]

BUSY = Plan(
    models=("tiny",),
    seconds=900,
    streams=6,
    stream_seconds=(1.0, 3.0),
    posts=12,
    fresh=6,
    uploads=1,
)
"""Many short answers: a tenth of them soon is enough to compare."""
GOOD: tuple[str, ...] = ()
SLOW = ("--token-delay", "0.15")
"""Seven times as long for each word as before."""
SHARE = "/etc/haproxy/farrier/share"


def to(site: Site, options: tuple[str, ...]) -> dict[str, str]:
    """The environment of an inventory in which *tiny* is everywhere another version."""
    new = {
        **TINY,
        "command": [*TINY["command"], *options],
        "env": {"VERSION": str(time.time())},
    }
    return site.environment(
        models={
            host: [new if model["name"] == "tiny" else model for model in models]
            for host, models in site.converge.models.items()
            if host in site.gpus
        }
    )


def shares(site: Site) -> dict[str, str]:
    """Who has a share of its own on each gateway, as ``gpu01:tiny 10``; empty: nobody."""
    return {gateway: site.root(gateway, SHARE).strip() for gateway in site.gateways}


def configurations(site: Site) -> dict[str, str]:
    """What each replica of *tiny* was started with."""
    return {host: site.ssh(host, "cat /run/farrier/started/tiny").split()[0] for host in site.gpus}


@pytest.fixture(autouse=True)
def no_share_is_left(site: Site) -> Iterator[None]:
    """Nobody has a share, and every unit is the inventory's again, for the next test."""
    yield
    for gateway, said in shares(site).items():
        for line in said.splitlines():
            site.root(gateway, f"{SHARE} {line.split()[0]} 100")
    if site.converge().returncode == 0:
        for host in site.gpus:
            site.root(host, "farrier-agent act done", check=False)
            if any(one["restart_pending"] for one in site.status(host)["replicas"]):
                site.root(host, "farrier-agent restart tiny --wait")
            site.root(host, "farrier-agent ready --all --wait")
            until(lambda: site.ready(host), 120, f"{host} serves")  # noqa: B023


def put_back(site: Site, here: Path, options: tuple[str, ...], *argv: str) -> Any:
    """The ledger of a converge to *options* whose canary, gpu01, is put back by itself."""
    before = configurations(site)
    runs = {host: site.unit(host, "engine-tiny.service", "InvocationID") for host in site.gpus}
    ledger = rollout(
        site, "converge", "-y", *argv, cwd=here, environment=to(site, options), check=1
    )
    assert ledger["outcome"] == "failed", ledger["reason"]
    states = {one["host"]: one["state"] for one in ledger["hosts"]}
    assert states == {"gpu01": "put back", "gpu02": "waiting", "gpu03": "waiting"}
    (compared,) = ledger["hosts"][0]["compared"]
    assert compared["verdict"] == "worse", compared
    assert compared["why"] in ledger["reason"]
    assert compared["canary"]["answers"] < compared["rest"]["answers"]
    assert configurations(site) == before, "what ran before runs again"
    after = {host: site.unit(host, "engine-tiny.service", "InvocationID") for host in site.gpus}
    assert [host for host in site.gpus if after[host] != runs[host]] == ["gpu01"]
    assert set(shares(site).values()) == {""}, "the share ended"
    assert all(site.gate(host) for host in site.gpus)
    return ledger
