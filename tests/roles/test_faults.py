"""A fault of a GPU on a real host: the verdict, the next step, and who is drained for it.

The whole table, on eight GPUs and four replicas, is in tests/full/test_faults.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.roles.faults import FAULTS, Site
from tests.roles.fleet import Fleet, until

HOST = "gpu02"
SOME = (
    "a call on one GPU hangs",
    "a GPU is lost",
    "a GPU is gone",
    "a row waits for a reset",
    "XID 119, GSP timeout",
)
"""The host's replica uses GPU 0; gpu01 and gpu03 serve the same model."""


@pytest.fixture
def site(fleet: Fleet) -> Iterator[Site]:
    one = Site(fleet, HOST, 8)
    one.well()
    yield one
    before = Site(fleet, HOST, 1)
    before.well()


@pytest.mark.parametrize("name", SOME)
def test_a_fault_is_told_and_drains_whom_it_concerns(site: Site, name: str) -> None:
    fault = FAULTS[name]
    for gpu, drained in ((5, False), (0, fault.drains)):
        with site.scraped():
            site.inject(fault, gpu)
            reason = until(partial(site.found, fault.rule, gpu), fault.ticks + 3, fault.rule)
            assert reason["state"] == fault.state
            assert fault.next in reason["next"]
            if drained:
                until(lambda: site.phases() == {"tiny": "drained"}, 20, "the replica is drained")
                assert not site.fleet.gate(HOST)
            else:
                assert site.phases() == {"tiny": "ready"}
        site.well()
    assert site.fleet.phase("gpu01") == "ready"
    assert site.fleet.phase("gpu03") == "ready"


def test_a_replica_comes_back_once_its_gpu_is_well(site: Site) -> None:
    site.inject(FAULTS["the driver wants a reset"], 0)
    until(lambda: site.phases() == {"tiny": "drained"}, 20, "the replica is drained")
    site.state()
    until(lambda: not site.reasons(), 10, "the verdict clears")
    assert site.phases() == {"tiny": "drained"}, "not at once: it may come again"
    until(lambda: site.phases() == {"tiny": "ready"}, 60, "the replica is taken back")
    until(lambda: site.fleet.gate(HOST), 5, "its gate is open")
