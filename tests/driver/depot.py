"""The lab ``depot`` with the stand-in repositories beside it, and a deploy that runs one source.

gpu01 is Debian 12 (gpgv), gpu02 Debian 13 (sqv).
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from farrier.lab import Lab
from tests.fakes.nvidia_repo.running import StandIn
from tests.roles.converging import Converge, Run

__all__ = ["BOTH", "Depot"]

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
