"""The fleet whose drivers are changed: converged once, by the first test that needs it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.conftest import lab_of_tests
from tests.driver_fleet.site import DriverSite, of_standin_alone
from tests.fakes.nvidia_repo.running import started
from tests.roles.converging import Converge


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DriverSite]:
    """The lab's hosts after the first converge: every one serves with :data:`.site.OLD`."""
    with (
        lab_of_tests(os.environ.get("FARRIER_FLEET_LAB", "fleet")) as lab,
        started(str(lab.definition.gateway), seconds=5400) as standin,
    ):
        it = DriverSite(lab, Converge(lab, tmp_path_factory.mktemp("fleet")), standin)
        it.prepare()
        run = it.converge(timeout=900)
        if run.returncode:
            pytest.fail(f"the first converge failed:\n{run.last_words(60)}", pytrace=False)
        print(f"first converge: {run.seconds:.0f} s")
        for host in it.gpus:
            of_standin_alone(it, host)
        it.settle()
        yield it
