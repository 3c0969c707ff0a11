"""A host's driver, changed while the fleet serves, and put back.

gpu01 gets GPUs and a driver for it, both stand-ins (tests/driver_fleet): packages, DKMS, boots and
the load are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.driver_fleet.changing import GATES, change, gates, is_changed
from tests.driver_fleet.site import NEW, OLD, boot, comes_with, fit, of_standin, of_standin_alone
from tests.fakes.nvidia_repo.running import started
from tests.fleet.rolling import as_it_was, here, load, nothing_lost, warmed_up
from tests.fleet.site import Site
from tests.roles.fleet import until

__all__ = ["as_it_was", "here"]

HOST = "gpu01"


@pytest.fixture(scope="module")
def fitted(site: Site) -> Iterator[Site]:
    """*site* while :data:`HOST` has GPUs and driver :data:`OLD`."""
    models, data = site.converge.models[HOST], site.converge.data[HOST]
    with started(str(site.lab.definition.gateway)) as standin:
        fit(site, HOST, of_standin(standin))
        _converged(site)
        of_standin_alone(site, HOST)
        yield site
    site.root(HOST, "cd /etc/apt && mv sources.list.away sources.list")
    site.converge.models[HOST], site.converge.data[HOST] = models, data
    _converged(site)


def _converged(site: Site) -> None:
    run = site.converge(limit=[HOST], timeout=900)
    assert run.returncode == 0, run.last_words(60)
    print(f"converge: {run.seconds:.0f} s")
    site.root(HOST, "systemctl restart engine-tiny")
    until(lambda: site.ready(HOST), 120, f"{HOST} serves")


def test_a_driver_that_is_not_as_well_is_put_back_and_the_next_one_stays(
    fitted: Site, here: Path
) -> None:
    site, before = fitted, boot(fitted, HOST)
    comes_with(site, HOST, NEW, "NVML 2.pcie.width 8")
    with load(site) as it:
        warmed_up(it)
        ledger = change(site, NEW, "--limit", HOST, cwd=here, check=1)
        (record,) = ledger["hosts"]
        assert record["state"] == "put back"
        assert "pcie-width" in record["turned"]
        is_changed(site, HOST, OLD)
        comes_with(site, HOST, NEW)
        ledger = change(site, NEW, "--limit", HOST, cwd=here)
        nothing_lost(site, it)
    assert ledger["outcome"] == "done"
    assert ledger["lost"] == 0
    is_changed(site, HOST, NEW)
    assert boot(site, HOST) != before
    found = gates(ledger["hosts"][0])
    assert [name for name in GATES if not found[name]["ok"]] == []
