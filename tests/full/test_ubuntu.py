"""The driver with Ubuntu's names, from stand-ins of NVIDIA's repository and of Ubuntu's archive.

Repositories and packages are stand-ins (tests/fakes/nvidia_repo); apt, dpkg, DKMS and the kernel's
build are real, and so is the role. The host is a Debian 13 that says it were Ubuntu 24.04, with a
stand-in of Ubuntu's archive among its sources: the names that the role chooses are Ubuntu's then.
The tests are one story, in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.driver.conftest import any_depot
from tests.driver.depot import Depot
from tests.driver.host import DriverHost

__all__ = ["any_depot"]

DRIVER = {"accelerator": "cuda", "nvidia_driver_source": "nvidia"}
NOBLE = 'ID=ubuntu\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\nPRETTY_NAME="stand-in"\n'
NOBLE_SOURCES = "/etc/apt/sources.list.d/ubuntu.sources"
NOBLE_KEYRING = "/etc/apt/keyrings/standin-ubuntu.asc"


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


def test_ubuntus_names_lose_their_suffix_and_get_it_back(ubuntu: DriverHost) -> None:
    ubuntu.good(nvidia_driver_version="580.95.05")
    ubuntu.assert_kept("nvidia-dkms-580-open", "580.95.05")
    assert "libnvidia-compute-580" in ubuntu.driver()
    ubuntu.good(nvidia_driver_branch="590")
    ubuntu.assert_kept("nvidia-dkms-open", "590.48.01")
    assert not [name for name in ubuntu.driver() if "-580" in name]
    ubuntu.good(nvidia_driver_version="580.95.05")
    ubuntu.assert_kept("nvidia-dkms-580-open", "580.95.05")
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
    ubuntu.assert_kept("nvidia-dkms-580-server-open", "580.126.09")
    assert "nvidia-fabricmanager-580" in ubuntu.driver()
    again = ubuntu.good(nvidia_driver_branch="580", nvidia_fabric=True, **archive)
    assert again.changed("gpu02") == []


def test_removal_leaves_nothing(ubuntu: DriverHost) -> None:
    ubuntu.remove()
    ubuntu.assert_no_driver()
