"""The fleet that these tests share: converged once, by the first test that needs it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from farrier.lab import Lab
from tests.conftest import lab_of_tests
from tests.fleet.site import Site
from tests.roles.converging import Converge


@pytest.fixture(scope="session")
def fleet_lab() -> Iterator[Lab]:
    """The lab ``fleet``: gw01 (Debian 13, HAProxy 3.0), gw02 (Debian 12, 2.6), three hosts."""
    with lab_of_tests(os.environ.get("FARRIER_FLEET_LAB", "fleet")) as it:
        yield it


@pytest.fixture(scope="session")
def site(fleet_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The lab's hosts after the first converge: see :class:`Site` for who serves what."""
    it = Site(fleet_lab, Converge(fleet_lab, tmp_path_factory.mktemp("fleet")))
    it.prepare()
    run = it.converge(timeout=900)
    if run.returncode:
        pytest.fail(f"the first converge failed:\n{run.last_words(60)}", pytrace=False)
    print(f"first converge: {run.seconds:.0f} s")
    it.settle()
    return it
