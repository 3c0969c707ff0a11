"""Debian's two real 535 drivers, exchanged by `farrier rollout driver` and put back (25 min).

Packages, archive, compiler, module and boots are real; loading the module, NVML, the persistence
daemon, which wants a device, and the engine are stand-ins (tests/driver_fleet).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import lab_of_tests
from tests.driver.host import NEWER, OLDER
from tests.driver_fleet.changing import MEASURE, gates
from tests.driver_fleet.site import boot, comes_with, fit, loaded
from tests.fleet.rolling import here, rollout
from tests.fleet.site import Site
from tests.roles.converging import Converge
from tests.roles.fleet import until

__all__ = ["here"]

HOST = "gpu01"
DEBIAN = {
    "nvidia_driver_source": "debian",
    "nvidia_driver_branch": "535",
    "nvidia_driver_version": OLDER,
}
_DAEMON = "[Service]\nType=exec\nExecStart=\nExecStart=/bin/sleep infinity\nExecStopPost=\n"
ALONE = ("--limit", HOST, "--allow-gap", *MEASURE)
"""Nobody else serves there."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The lab ``driver``, whose gpu01 serves with :data:`OLDER`."""
    with lab_of_tests("driver") as lab:
        it = Site(lab, Converge(lab, tmp_path_factory.mktemp("debian")))
        it.prepare()
        fit(it, HOST, DEBIAN, switches=0)
        unit = "/etc/systemd/system/nvidia-persistenced.service.d/standin.conf"
        it.put(HOST, unit, _DAEMON.encode())
        run = it.converge(limit=[HOST], timeout=1500)
        assert run.returncode == 0, run.last_words(60)
        print(f"from bare to {OLDER}, serving: {run.seconds:.0f} s")
        until(lambda: it.ready(HOST), 120, f"{HOST} serves")
        yield it


def is_on(site: Site, version: str) -> None:
    """*version* is installed, built and loaded, and the host serves with it."""
    there = site.ssh(HOST, "dpkg-query -W -f '${Version}' nvidia-kernel-dkms")
    assert there.startswith(f"{version}-")
    assert f"nvidia-current/{version}" in site.root(HOST, "dkms status -m nvidia-current")
    assert "nvidia-kernel-dkms" in site.root(HOST, "apt-mark showhold")
    assert site.root(HOST, "dpkg --audit") == ""
    assert loaded(site, HOST) == version
    assert site.status(HOST)["gpus"]["driver_version"] == version
    assert site.ready(HOST)


def test_a_gate_fails_and_the_former_driver_comes_back(site: Site, here: Path) -> None:
    is_on(site, OLDER)
    before = boot(site, HOST)
    comes_with(site, HOST, NEWER, "NVML 2.nvlinks 18", "NVML 2.fv.165.3 0")
    argv = ("driver", "-y", "--to", NEWER, *ALONE)
    ledger = rollout(site, *argv, cwd=here, check=1, timeout=2400)
    print(os.linesep.join(f"{one['step']}: {one['note']}" for one in ledger["hosts"][0]["steps"]))
    assert ledger["hosts"][0]["state"] == "put back"
    assert "nvlink" in ledger["hosts"][0]["turned"]
    is_on(site, OLDER)
    assert boot(site, HOST) != before


def test_the_newer_one_is_taken(site: Site, here: Path) -> None:
    comes_with(site, HOST, NEWER)
    ledger = rollout(site, "driver", "-y", "--to", NEWER, *ALONE, cwd=here, timeout=1500)
    assert ledger["outcome"] == "done"
    is_on(site, NEWER)
    assert not [name for name, one in gates(ledger["hosts"][0]).items() if one["ok"] is False]
