"""One lab host whose driver is changed for real, as an operator sees it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from farrier.lab import Lab
    from tests.roles.converging import Converge, Run

__all__ = ["NEWER", "OLDER", "PLAIN", "STATE", "DriverHost"]

OLDER, NEWER = "535.261.03", "535.309.01"
"""The two versions that Debian 12 has on offer: in the release, and in its security archive."""

STATE = "/var/lib/farrier/nvidia"
PLAIN = "tests/driver/plain.py"
"""A deploy of the role as deploys/llm.py calls it: installs and keeps, exchanges nothing."""

_SNAPSHOT = r"""
echo "== packages"; dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\n'
echo "== holds"; apt-mark showhold
echo "== files"; find /etc/apt /etc/modprobe.d /etc/modules-load.d /var/lib/farrier/nvidia \
    \( -type f -o -type l \) ! -name lock ! -name log 2>/dev/null | sort | xargs -r sha256sum
echo "== modules"; find /lib/modules /usr/src /var/lib/dkms -maxdepth 2 2>/dev/null | sort
echo "== dkms"; command -v dkms >/dev/null && dkms status
echo "== failed"; systemctl --failed --plain --no-legend
true
"""


@dataclass
class DriverHost:
    """The host *name*; *data* is what its inventory says of the driver."""

    lab: Lab
    converge: Converge
    name: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def run(
        self,
        *options: str,
        deploy: str = "deploys/driver.py",
        timeout: float = 1500,
        models: Sequence[Mapping[str, Any]] = (),
        **data: Any,
    ) -> Run:
        """One run of pyinfra; *data* is added to the host's, which has to serve *models*."""
        return self.converge(
            *options,
            deploy=deploy,
            limit=[self.name],
            timeout=timeout,
            data={self.name: {**self.data, **data}},
            models={self.name: models},
        )

    def start(self, **data: Any) -> subprocess.Popen[str]:
        """The same, not waited for."""
        return self.converge.start(
            deploy="deploys/driver.py",
            limit=[self.name],
            data={self.name: {**self.data, **data}},
            models={self.name: []},
        )

    def good(self, *options: str, **more: Any) -> Run:
        """A run that ended with 0."""
        run = self.run(*options, **more)
        assert run.returncode == 0, run.last_words(60)
        return run

    def remove(self) -> Run:
        """The role's removal."""
        return self.good("--data", "role=nvidia_driver", deploy="deploys/remove.py")

    def root(self, script: str, *, check: bool = True) -> str:
        """What a root shell with *script* printed; a failure shows what it said."""
        done = self.lab.ssh(self.name, "sudo sh -s", input=script, check=False)
        if check and done.returncode:
            pytest.fail(f"{self.name}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def snapshot(self) -> list[str]:
        """Packages, holds, apt's and modprobe's files, modules, DKMS and failed units."""
        return self.root(_SNAPSHOT).splitlines()

    def driver(self) -> dict[str, str]:
        """The driver's packages that are installed, with their versions."""
        listing = self.root(
            "dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\\n' '*nvidia*' libcuda1"
            " 2>/dev/null; true"
        )
        lines = [line.split(" ") for line in listing.splitlines()]
        return {name: version for state, name, version in lines if state == "installed"}

    def held(self) -> set[str]:
        """What ``apt-mark`` holds."""
        return set(self.root("apt-mark showhold").split())

    def assert_whole(self, version: str) -> None:
        """*version* is installed, built for every kernel with headers, held and guarded."""
        driver = self.driver()
        assert driver["nvidia-kernel-dkms"].startswith(f"{version}-")
        versioned = {"libcuda1", "libnvidia-ml1", "nvidia-smi", "firmware-nvidia-gsp"}
        assert {driver[name].partition("-")[0] for name in versioned} == {version}
        assert {"nvidia-kernel-dkms", "nvidia-persistenced", *versioned} <= self.held()
        kernels = self.root("ls -d /lib/modules/*/build").split()
        assert kernels
        for kernel in (path.split("/")[3] for path in kernels):
            said = self.root(f"modinfo -k {kernel} -F version nvidia-current")
            assert said.strip() == version
        status = self.root("dkms status -m nvidia-current").splitlines()
        assert [line for line in status if "installed" in line and version in line] == status
        assert self.root("dpkg --audit") == ""
        assert self.root("systemctl is-enabled nvidia-persistenced").strip() == "enabled"
        assert self.root("systemctl --failed --plain --no-legend") == ""
        for name in ("nvidia-kernel-dkms", "libcuda1"):
            policy = self.root(f"apt-cache policy {name}")
            assert f"Candidate: {driver[name]}\n" in policy
        assert self.root(f"ls {STATE}").split() == [
            "current",
            "installed",
            "lock",
            "log",
            "transaction",
        ]

    def assert_kept(self, module: str, version: str) -> None:
        """*version* throughout, built and held, and apt would not change any of it by itself."""
        driver = self.driver()
        assert driver[module].startswith(f"{version}-")
        pinning = "nvidia-driver-pinning"
        assert {
            there.partition("-")[0]
            for name, there in driver.items()
            if not name.startswith(pinning)
        } == {version}
        assert set(driver) <= self.held()
        built = self.root("dkms status -m nvidia")
        assert built.count("installed") >= 1
        assert all(f"nvidia/{version}" in line for line in built.splitlines())
        assert self.root("dpkg --audit") == ""
        self.root("DEBIAN_FRONTEND=noninteractive apt-get -qq -y dist-upgrade >/dev/null")
        assert self.driver() == driver

    def assert_no_driver(self) -> None:
        """Nothing of a driver, of its holds or of the role's files."""
        assert self.driver() == {}
        assert self.held() == set()
        left = self.root("find /etc/apt /etc/modprobe.d /var/lib/farrier -name '*farrier*nvidia*'")
        assert left == ""
        self.root("apt-get -qq update")
