"""What the tests of single roles need: the lab's hosts, and a deploy of one role."""

import pytest

from farrier.lab import Lab
from tests.roles.converging import Converge
from tests.roles.fleet import Fleet


@pytest.fixture(scope="session")
def converge(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Converge:
    """Calls the real ``pyinfra``; no host serves a model."""
    it = Converge(lab, tmp_path_factory.mktemp("toolkits"))
    it.models |= {host.name: [] for host in lab.hosts if "gpu" in host.groups}
    return it


@pytest.fixture(scope="session")
def hosts(lab: Lab, converge: Converge) -> Fleet:
    """The lab's hosts as they are: nothing was converged."""
    return Fleet(lab, converge)
