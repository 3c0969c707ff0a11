"""Replicas that serve, on the tests' host, and what becomes of requests about them."""

from __future__ import annotations

import os
from typing import Any

import pytest
from farrier_agent.config import Replica
from farrier_agent.control.protocol import Done, Final, Result

from tests.agent.host import Host, replica, until

__all__ = ["UNIT", "counts", "ends", "needs_another_user", "result", "run_by_its_unit", "serving"]

UNIT = "engine-tiny.service"

needs_another_user = pytest.mark.skipif(
    os.geteuid() != 0, reason="sockets of nginx's user need root"
)


def serving(host: Host, **fields: Any) -> Replica:
    """One replica that serves, in a run of its unit that nothing but the test ends."""
    one = replica()
    host.configure(one, **fields)
    host.unit(one.unit, run=1)
    host.engine(one.port, "tiny")
    host.start()
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.gate()
    return one


def run_by_its_unit(host: Host, *options: str, **fields: Any) -> Replica:
    """One replica that serves, whose unit runs its engine and drains it by ``ExecStop=``."""
    one = replica()
    stop = host.stop_program(one, "--deadline=60", "--cap=60")
    host.engine_unit(one, *options, stop=[["-", *stop], stop])
    host.evidence_unit(one)
    host.configure(one, **fields)
    host.start()
    host.systemd.job("start", one.unit)
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.gate()
    return one


def result(final: Final) -> Result:
    """The one result of the last word."""
    assert isinstance(final, Done), final
    (one,) = final.results
    return one


def counts(host: Host, count: int) -> bool:
    """The drain has closed the gate and has counted so many requests behind it."""
    drain = host.record().drain
    return drain is not None and drain.looked is not None and drain.in_flight == count


def ends(host: Host) -> dict[str, int]:
    """How the requests ended, by the account of the engines, without those of warm-ups."""
    lines = (host.root / "account").read_text().splitlines()
    found: dict[str, int] = {}
    for line in lines:
        if '"stream-' in line and '"end"' in line:
            end = line.rpartition('"end": "')[2].partition('"')[0]
            found[end] = found.get(end, 0) + 1
    return found


def two_that_serve(host: Host) -> None:
    """Replicas a and b, both ready."""
    ones = replica("a"), replica("b")
    host.configure(*ones)
    for one in ones:
        host.unit(one.unit, run=1)
        host.engine(one.port, one.model)
    host.start()
    until(lambda: host.get("/readyz")[0] == 200)
