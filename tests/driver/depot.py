"""The lab ``depot`` with the stand-in repositories beside it, and a deploy that runs one source.

gpu01 is Debian 12 (gpgv), gpu02 Debian 13 (sqv).
"""

from __future__ import annotations

import fcntl
import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farrier.lab import Lab, LabError
from tests.fakes.nvidia_repo.running import StandIn, started
from tests.roles.converging import Converge, Run

__all__ = ["BOTH", "Depot", "any_depot", "depot"]

BOTH = ("gpu01", "gpu02")

SOURCE_DEPLOY = '''\
"""The source of the driver's packages alone, as the inventory's data say."""

from pyinfra import config, host

from roles.nvidia_driver import DEFAULTS
from roles.nvidia_driver.sources import apt_source

config.SUDO = True
values = DEFAULTS.read(host.data)
apt_source(
    values["nvidia_driver_source"],
    url=values["nvidia_repo_url"],
    key_url=values["nvidia_repo_key_url"],
    fingerprint=values["nvidia_repo_fingerprint"],
    proxy=values["nvidia_repo_proxy"],
    directory=values["nvidia_driver_directory"],
    name="Source",
)
'''

OWN = (
    "/etc/apt/keyrings/farrier-nvidia.gpg",
    "/etc/apt/sources.list.d/farrier-nvidia.sources",
    "/etc/apt/preferences.d/farrier-nvidia-source",
    "/etc/apt/apt.conf.d/60farrier-nvidia-proxy",
    "/var/lib/farrier/nvidia-packages",
)


class Depot:
    """The two hosts, and the program that stands for the vendors' repositories."""

    def __init__(self, lab: Lab, standin: StandIn, directory: Path) -> None:
        self.lab = lab
        self.standin = standin
        self.converge = Converge(lab, directory)
        self.source_deploy = directory / "source.py"
        self.source_deploy.write_text(SOURCE_DEPLOY, encoding="utf-8")

    def root(self, host: str, command: str, *, check: bool = True) -> str:
        """What *command* printed on *host* as root; a failure shows what it said."""
        done = self.lab.ssh(host, f"sudo sh -c {shlex.quote(command)}", check=False)
        if check and done.returncode:
            pytest.fail(f"{host}: {command}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def source(self, *hosts: str, kind: str = "good", **more: Any) -> Run:
        """Run the source alone on *hosts* (both if none is named), with more data."""
        data = {"nvidia_driver_source": "nvidia", **self.standin.repository(kind), **more}
        names = hosts or BOTH
        return self.converge(
            deploy=str(self.source_deploy), data=dict.fromkeys(names, data), limit=names
        )

    def candidate(self, host: str, package: str) -> str:
        """The version that apt would install."""
        policy = self.root(host, f"LC_ALL=C apt-cache policy {package}")
        lines = [line.split() for line in policy.splitlines()]
        return next((words[1] for words in lines if words[:1] == ["Candidate:"]), "")

    def files(self, host: str) -> list[str]:
        """Which of the source's files are on *host*."""
        return self.root(host, f"ls -d {' '.join(OWN)} 2>/dev/null || true").split()

    def bare(self) -> None:
        """Both hosts without a source, and with the lists of their own archive."""
        for host in BOTH:
            self.root(host, f"rm -rf {' '.join(OWN)}; rm -f /var/lib/apt/lists/198.18.6.1*")


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
