"""The lab ``nginx`` with the role nginx, stand-in engines, and open gates."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from farrier.lab import Lab
from tests.conftest import lab_of_tests
from tests.nginx.site import HOSTS, Site
from tests.roles.converging import Converge


@pytest.fixture(scope="session")
def nginx_lab() -> Iterator[Lab]:
    """The lab, up and ours alone."""
    with lab_of_tests("nginx") as it:
        yield it


@pytest.fixture(scope="session")
def every_site(nginx_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Site]:
    """Both hosts, with engines, before any converge."""
    directory = tmp_path_factory.mktemp("nginx")
    sites = {
        name: Site(nginx_lab, Converge(nginx_lab, directory), name, directory) for name in HOSTS
    }
    for site in sites.values():
        site.prepare()
    return sites


@pytest.fixture(scope="module", params=HOSTS)
def site(every_site: dict[str, Site], request: pytest.FixtureRequest) -> Iterator[Site]:
    """One host, Debian 12 and then 13, with every gate open at the end of a test module."""
    it = every_site[request.param]
    yield it
    it.open()
