"""What the tests of single roles need: one host, a deploy of one role, stand-in packages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from farrier.lab import Lab, LabError
from tests.roles.converging import Converge, Run
from tests.roles.fleet import Fleet
from tests.toolkits.standins import Depot, depot

HOSTS = ("gpu01",)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab that FARRIER_TOOLKITS_LAB names, else ``depot``: packages come and go on its hosts.

    Not that of the fleet's tests, whose hosts serve. FARRIER_KEEP_LAB=1 leaves it running.
    """
    it = Lab.open(os.environ.get("FARRIER_TOOLKITS_LAB", "depot"), report=print)
    try:
        it.up(HOSTS)
    except LabError as error:
        pytest.fail(str(error), pytrace=False)
    yield it
    if os.environ.get("FARRIER_KEEP_LAB") != "1":
        it.down()


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


@pytest.fixture(scope="session")
def packages(lab: Lab) -> Iterator[Depot]:
    """The stand-in repositories, served on the operator's address in the lab."""
    with depot(str(lab.definition.gateway)) as it:
        yield it


class Role:
    """One role on one host."""

    def __init__(self, name: str, host: str, converge: Converge) -> None:
        self.name = name
        self.host = host
        self.converge = converge

    def run(self, *words: str, **data: Any) -> Run:
        """Converge it with the inventory's *data*."""
        return self.converge(
            *("--data", f"role={self.name}", *words),
            deploy="tests/toolkits/deploy_role.py",
            limit=[self.host],
            data={self.host: data},
        )

    def brought(self, **data: Any) -> Run:
        """The same; it has to succeed, and a second run has to find nothing to do."""
        run = self.run(**data)
        assert run.returncode == 0, run.last_words()
        again = self.run(**data)
        assert (again.returncode, again.changed(self.host)) == (0, []), again.last_words()
        return run

    def refused(self, *told: str, **data: Any) -> str:
        """The same; it has to fail, and to say every one of *told* at the end."""
        run = self.run(**data)
        assert run.returncode == 1, run.last_words()
        assert "Traceback" not in run.stderr, run.stderr
        failed = run.last_section("Failed:")
        assert [words for words in told if words not in failed] == [], run.last_words()
        return failed

    def removed(self, **data: Any) -> None:
        """Take it away; doing so twice changes nothing more."""
        run = self.run("--data", "removed=true", **data)
        assert run.returncode == 0, run.last_words()
        again = self.run("--data", "removed=true", **data)
        assert (again.returncode, again.changed(self.host)) == (0, []), again.last_words()
