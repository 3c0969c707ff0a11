"""The hosts on which drivers are really installed, and the stand-in repositories beside others."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from farrier.lab import Lab, LabError
from tests.driver.depot import Depot
from tests.driver.host import DriverHost
from tests.fakes.nvidia_repo.running import started
from tests.roles.converging import Converge


@pytest.fixture(scope="session")
def driver_lab() -> Iterator[Lab]:
    """The lab ``driver``, up and ours alone. FARRIER_KEEP_LAB=1 leaves it running."""
    with Path(tempfile.gettempdir(), "farrier-tests-driver.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            it = Lab.open("driver", report=print)
            it.up()
        except LabError as error:
            pytest.fail(str(error), pytrace=False)
        yield it
        if os.environ.get("FARRIER_KEEP_LAB") != "1":
            it.down()


def _host(lab: Lab, directory: Path, name: str, branch: str) -> DriverHost:
    data = {
        "accelerator": "cuda",
        "nvidia_driver_source": "debian",
        "nvidia_driver_branch": branch,
    }
    return DriverHost(lab, Converge(lab, directory), name, data)


@pytest.fixture(scope="session")
def bookworm(driver_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> DriverHost:
    """Debian 12, whose archive has branch 535 in two versions."""
    return _host(driver_lab, tmp_path_factory.mktemp("bookworm"), "gpu01", "535")


@pytest.fixture(scope="session")
def trixie(driver_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> DriverHost:
    """Debian 13, whose archive has branch 550."""
    return _host(driver_lab, tmp_path_factory.mktemp("trixie"), "gpu02", "550")


@pytest.fixture(scope="session")
def any_depot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Depot]:
    """The lab ``depot``, up and ours alone. FARRIER_KEEP_LAB=1 leaves it running."""
    with Path(tempfile.gettempdir(), "farrier-tests-depot.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            lab = Lab.open("depot", report=print)
            lab.up()
        except LabError as error:
            pytest.fail(str(error), pytrace=False)
        with started(str(lab.definition.gateway)) as standin:
            yield Depot(lab, standin, tmp_path_factory.mktemp("depot"))
        if os.environ.get("FARRIER_KEEP_LAB") != "1":
            lab.down()


@pytest.fixture
def depot(any_depot: Depot) -> Depot:
    """The depot without any source of the driver's on its hosts."""
    any_depot.bare()
    return any_depot
