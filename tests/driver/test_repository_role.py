"""The driver from NVIDIA's repository: branches, pairs, pins and holds.

Repository and packages are stand-ins (tests/fakes/nvidia_repo) with the vendor's names and
relations; apt, dpkg, DKMS and the kernel's build are real, and so is the role. The tests are one
story, in order. Ubuntu's names and archive: tests/full/test_ubuntu.py.
"""

from __future__ import annotations

import pytest

from tests.driver.depot import Depot
from tests.driver.host import PLAIN, DriverHost
from tests.fakes.nvidia_repo.catalogue import NVLSM, WITHOUT_FABRIC_MANAGER

DRIVER = {"accelerator": "cuda", "nvidia_driver_source": "nvidia"}


@pytest.fixture(scope="module")
def debian(any_depot: Depot) -> DriverHost:
    """Debian 12, bare, with the stand-in of NVIDIA's repository for it in the inventory."""
    data = {**DRIVER, **any_depot.standin.repository()}
    it = DriverHost(any_depot.lab, any_depot.converge, "gpu01", data)
    it.remove()
    any_depot.bare()
    assert it.driver() == {}
    return it


def test_debian_gets_the_version_that_is_asked_for(debian: DriverHost) -> None:
    run = debian.good(deploy=PLAIN, nvidia_driver_version="580.95.05")
    print(f"bare to driver: {run.seconds:.0f} s")
    debian.assert_kept("nvidia-kernel-open-dkms", "580.95.05")
    again = debian.good(deploy=PLAIN, nvidia_driver_version="580.95.05")
    assert again.changed("gpu01") == []
    # Without a version the installed one is wanted, although 580.105.08 is on offer.
    assert debian.good().changed("gpu01") == []


def test_debian_changes_its_branch_and_goes_back(debian: DriverHost) -> None:
    debian.good(nvidia_driver_branch="590")
    debian.assert_kept("nvidia-kernel-open-dkms", "590.48.01")
    debian.good(nvidia_driver_branch="570")
    debian.assert_kept("nvidia-kernel-open-dkms", "570.195.03")


def test_debian_changes_its_flavour(debian: DriverHost) -> None:
    debian.good(nvidia_driver_version="580.95.05", nvidia_driver_flavour="proprietary")
    debian.assert_kept("nvidia-kernel-dkms", "580.95.05")
    assert "nvidia-kernel-open-dkms" not in debian.driver()


def test_fabric_manager_is_of_exactly_the_drivers_version(debian: DriverHost) -> None:
    debian.good(nvidia_driver_version="580.95.05", nvidia_fabric=True)
    assert debian.driver()["nvidia-fabricmanager"] == "580.95.05-1"
    debian.assert_kept("nvidia-kernel-open-dkms", "580.95.05")
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


def test_removal_leaves_nothing(debian: DriverHost) -> None:
    debian.remove()
    debian.assert_no_driver()
