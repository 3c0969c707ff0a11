"""The driver from NVIDIA's and Ubuntu's repositories: branches, names, pairs, pins and holds.

Repositories and packages are stand-ins (tests/fakes/nvidia_repo) with the vendors' names and
relations; apt, dpkg, DKMS and the kernel's build are real, and so is the role. gpu01 is Debian 12.
gpu02 is a Debian 13 that says it were Ubuntu 24.04, with a stand-in of Ubuntu's archive among its
sources: the names that the role chooses are Ubuntu's then. The tests are two stories, in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.driver.depot import Depot
from tests.driver.host import PLAIN, DriverHost
from tests.fakes.nvidia_repo.catalogue import NVLSM, WITHOUT_FABRIC_MANAGER

DRIVER = {"accelerator": "cuda", "nvidia_driver_source": "nvidia"}
NOBLE = 'ID=ubuntu\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\nPRETTY_NAME="stand-in"\n'
NOBLE_SOURCES = "/etc/apt/sources.list.d/ubuntu.sources"
NOBLE_KEYRING = "/etc/apt/keyrings/standin-ubuntu.asc"


@pytest.fixture(scope="module")
def debian(any_depot: Depot) -> DriverHost:
    """Debian 12, bare, with the stand-in of NVIDIA's repository for it in the inventory."""
    data = {**DRIVER, **any_depot.standin.repository()}
    it = DriverHost(any_depot.lab, any_depot.converge, "gpu01", data)
    it.remove()
    any_depot.bare()
    assert it.driver() == {}
    return it


@pytest.fixture(scope="module")
def ubuntu(any_depot: Depot) -> Iterator[DriverHost]:
    """A host that says it were Ubuntu 24.04, bare."""
    data = {**DRIVER, **any_depot.standin.repository()}
    it = DriverHost(any_depot.lab, any_depot.converge, "gpu02", data)
    it.remove()
    any_depot.bare()
    archive = f"{any_depot.standin.url}/ubuntu"
    sources = f"Types: deb\nURIs: {archive}\nSuites: noble\nComponents: main\n"
    sources += f"Signed-By: {NOBLE_KEYRING}\n"
    it.root(
        f"""set -eu
rm -f /etc/os-release
cat > /etc/os-release <<'E'
{NOBLE}E
cat > {NOBLE_SOURCES} <<'E'
{sources}E
/usr/lib/apt/apt-helper download-file {archive}/key.asc {NOBLE_KEYRING} >&2
"""
    )
    yield it
    it.root(f"ln -sfn ../usr/lib/os-release /etc/os-release; rm -f {NOBLE_SOURCES} {NOBLE_KEYRING}")


def versions(host: DriverHost, *but: str) -> set[str]:
    """The upstream versions of what is installed of the driver, except the packages *but*."""
    return {
        version.partition("-")[0]
        for name, version in host.driver().items()
        if name not in but and not name.startswith("nvidia-driver-pinning")
    }


def assert_kept(host: DriverHost, module: str, version: str) -> None:
    """*version* throughout, built and held, and apt would not change any of it by itself."""
    driver = host.driver()
    assert driver[module].startswith(f"{version}-")
    assert versions(host) == {version}
    assert set(driver) <= host.held()
    built = host.root("dkms status -m nvidia")
    assert built.count("installed") >= 1
    assert all(f"nvidia/{version}" in line for line in built.splitlines())
    assert host.root("dpkg --audit") == ""
    host.root("DEBIAN_FRONTEND=noninteractive apt-get -qq -y dist-upgrade >/dev/null")
    assert host.driver() == driver


def test_debian_gets_the_version_that_is_asked_for(debian: DriverHost) -> None:
    run = debian.good(deploy=PLAIN, nvidia_driver_version="580.95.05")
    print(f"bare to driver: {run.seconds:.0f} s")
    assert_kept(debian, "nvidia-kernel-open-dkms", "580.95.05")
    again = debian.good(deploy=PLAIN, nvidia_driver_version="580.95.05")
    assert again.changed("gpu01") == []
    # Without a version the installed one is wanted, although 580.105.08 is on offer.
    assert debian.good().changed("gpu01") == []


def test_debian_changes_its_branch_and_goes_back(debian: DriverHost) -> None:
    debian.good(nvidia_driver_branch="590")
    assert_kept(debian, "nvidia-kernel-open-dkms", "590.48.01")
    debian.good(nvidia_driver_branch="570")
    assert_kept(debian, "nvidia-kernel-open-dkms", "570.195.03")


def test_debian_changes_its_flavour(debian: DriverHost) -> None:
    debian.good(nvidia_driver_version="580.95.05", nvidia_driver_flavour="proprietary")
    assert_kept(debian, "nvidia-kernel-dkms", "580.95.05")
    assert "nvidia-kernel-open-dkms" not in debian.driver()


def test_fabric_manager_is_of_exactly_the_drivers_version(debian: DriverHost) -> None:
    debian.good(nvidia_driver_version="580.95.05", nvidia_fabric=True)
    assert debian.driver()["nvidia-fabricmanager"] == "580.95.05-1"
    assert_kept(debian, "nvidia-kernel-open-dkms", "580.95.05")
    assert "nvidia-kernel-dkms" not in debian.driver()
    before = debian.snapshot()
    run = debian.run(nvidia_driver_version=WITHOUT_FABRIC_MANAGER, nvidia_fabric=True)
    assert run.returncode == 1
    failed = run.last_section("Failed:")
    assert "nvidia-fabricmanager" in failed, failed
    assert WITHOUT_FABRIC_MANAGER in failed, failed
    assert debian.snapshot() == before


def test_nothing_of_the_repository_but_the_driver(debian: DriverHost) -> None:
    hello = debian.root("apt-cache policy hello")
    assert "Candidate: 99" not in hello
    assert NVLSM.partition("-")[0] in debian.root("apt-cache policy nvlsm")


def test_ubuntus_names_lose_their_suffix_and_get_it_back(ubuntu: DriverHost) -> None:
    ubuntu.good(nvidia_driver_version="580.95.05")
    assert_kept(ubuntu, "nvidia-dkms-580-open", "580.95.05")
    assert "libnvidia-compute-580" in ubuntu.driver()
    ubuntu.good(nvidia_driver_branch="590")
    assert_kept(ubuntu, "nvidia-dkms-open", "590.48.01")
    assert not [name for name in ubuntu.driver() if "-580" in name]
    ubuntu.good(nvidia_driver_version="580.95.05")
    assert_kept(ubuntu, "nvidia-dkms-580-open", "580.95.05")
    assert "nvidia-dkms-open" not in ubuntu.driver()


def test_ubuntus_archive_and_its_empty_packages(ubuntu: DriverHost) -> None:
    archive: dict[str, Any] = {"nvidia_driver_source": "ubuntu"}
    before = ubuntu.snapshot()
    run = ubuntu.run(nvidia_driver_branch="570", **archive)
    assert run.returncode == 1
    failed = run.last_section("Failed:")
    assert "an empty package that installs nvidia-dkms-580-server-open" in failed, failed
    assert [line for line in ubuntu.snapshot() if "/etc/apt/" not in line] == [
        line for line in before if "/etc/apt/" not in line
    ]
    ubuntu.good(nvidia_driver_branch="580", nvidia_fabric=True, **archive)
    assert_kept(ubuntu, "nvidia-dkms-580-server-open", "580.126.09")
    assert "nvidia-fabricmanager-580" in ubuntu.driver()
    again = ubuntu.good(nvidia_driver_branch="580", nvidia_fabric=True, **archive)
    assert again.changed("gpu02") == []


def test_removal_leaves_nothing(debian: DriverHost, ubuntu: DriverHost) -> None:
    for host in (debian, ubuntu):
        host.remove()
        assert host.driver() == {}
        assert host.held() == set()
        left = host.root("find /etc/apt /etc/modprobe.d /var/lib/farrier -name '*farrier*nvidia*'")
        assert left == ""
        host.root("apt-get -qq update")
