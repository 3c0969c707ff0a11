"""What the driver's packages are called, and which of them are empty dependencies."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest

from roles.nvidia_driver.names import (
    FAMILIES,
    SYSTEMS,
    NamesError,
    is_driver_package,
    package_set,
    successor,
    superseded,
)

NVIDIA_DEBIAN = ("nvidia-driver-cuda", "nvidia-persistenced")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("nvidia", "debian12", "580", "open"), ("nvidia-kernel-open-dkms", *NVIDIA_DEBIAN)),
        (("nvidia", "debian13", "590", "open"), ("nvidia-kernel-open-dkms", *NVIDIA_DEBIAN)),
        (("nvidia", "debian12", "580", "proprietary"), ("nvidia-kernel-dkms", *NVIDIA_DEBIAN)),
        (
            ("nvidia", "ubuntu2404", "580", "open"),
            ("nvidia-dkms-580-open", "libnvidia-compute-580", "nvidia-persistenced"),
        ),
        (
            ("nvidia", "ubuntu2204", "570", "proprietary"),
            ("nvidia-dkms-570", "libnvidia-compute-570", "nvidia-persistenced"),
        ),
        (
            ("nvidia", "ubuntu2404", "590", "open"),
            ("nvidia-dkms-open", "libnvidia-compute", "nvidia-persistenced"),
        ),
        (
            ("nvidia", "ubuntu2404", "610", "proprietary"),
            ("nvidia-dkms", "libnvidia-compute", "nvidia-persistenced"),
        ),
        (
            ("ubuntu", "ubuntu2404", "580", "open"),
            (
                "nvidia-dkms-580-server-open",
                "libnvidia-compute-580-server",
                "nvidia-utils-580-server",
                "nvidia-compute-utils-580-server",
            ),
        ),
        (
            ("debian", "debian12", "535", "proprietary"),
            ("nvidia-kernel-dkms", "libcuda1", "nvidia-smi", "nvidia-persistenced"),
        ),
        (
            ("debian", "debian13", "550", "open"),
            ("nvidia-open-kernel-dkms", "libcuda1", "nvidia-smi", "nvidia-persistenced"),
        ),
    ],
)
def test_names(arguments: Any, names: tuple[str, ...]) -> None:
    found = package_set(*arguments)
    assert found.names == names
    assert found.module == names[0]
    assert all(is_driver_package(name) for name in (*found.names, *found.if_offered))


@pytest.mark.parametrize(
    ("system", "branch", "manager"),
    [
        ("debian12", "570", "nvidia-fabricmanager-570"),
        ("ubuntu2404", "575", "nvidia-fabricmanager-575"),
        ("debian12", "580", "nvidia-fabricmanager"),
        ("ubuntu2204", "590", "nvidia-fabricmanager"),
    ],
)
def test_fabric_manager_of_nvidias_repository(system: str, branch: str, manager: str) -> None:
    found = package_set("nvidia", system, branch, "open", fabric=True, nvlink5=True)
    assert (found.fabric, found.nvlink5) == ((manager,), ("nvlsm",))
    assert found.names[-2:] == (manager, "nvlsm")


def test_fabric_manager_of_ubuntus_archive() -> None:
    found = package_set("ubuntu", "ubuntu2404", "590", "open", fabric=True)
    assert found.fabric == ("nvidia-fabricmanager-590",)


@pytest.mark.parametrize(
    ("arguments", "more", "words"),
    [
        (("nvidia", "debian11", "580", "open"), {}, "debian11"),
        (("nvidia", "debian12", "580.95", "open"), {}, '"580"'),
        (("ubuntu", "debian12", "580", "open"), {}, 'say "debian" or "nvidia"'),
        (("debian", "debian12", "580", "open"), {}, 'nvidia_driver_branch = "535"'),
        (("debian", "debian13", "550", "open"), {"fabric": True}, "no fabric manager"),
        (("ubuntu", "ubuntu2404", "580", "open"), {"nvlink5": True}, "no nvlsm"),
    ],
)
def test_what_there_is_no_package_for(arguments: Any, more: dict[str, Any], words: str) -> None:
    with pytest.raises(NamesError, match=words):
        package_set(*arguments, **more)


def test_a_directory_names_its_packages_itself() -> None:
    def module(*offered: str) -> str:
        return package_set("directory", "ubuntu2404", "580", "open", offered=offered).module

    assert module("nvidia-dkms-580-server-open", "x") == "nvidia-dkms-580-server-open"
    assert module("nvidia-dkms-580-open", "x") == "nvidia-dkms-580-open"
    assert module() == "nvidia-dkms-580-open"


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("branch", ["535", "570", "580", "590", "610"])
def test_pinning_package(system: str, branch: str) -> None:
    found = package_set("nvidia", system, branch, "open")
    assert found.pinning == f"nvidia-driver-pinning-{branch}"


def test_versions_of_a_branch() -> None:
    found = package_set("nvidia", "debian12", "580", "open")
    assert found.of_branch("580.95.05-1")
    assert found.of_branch("1:580.95.05-0ubuntu1")
    assert not found.of_branch("5801.95-1")
    assert not found.of_branch("590.48.01-1")


@pytest.mark.parametrize(
    ("name", "depends", "target"),
    [
        # noble-updates, 2026-11-21
        (
            "nvidia-dkms-570-server-open",
            "nvidia-dkms-580-server-open",
            "nvidia-dkms-580-server-open",
        ),
        ("nvidia-fabricmanager-590", "nvidia-fabricmanager-595", "nvidia-fabricmanager-595"),
        ("nvidia-fabricmanager-580", "nvidia-kernel-common-580-server-580.178.04", None),
        ("nvidia-compute-utils-580", "libnvidia-compute-580, adduser, libc6 (>= 2.34)", None),
        ("libnvidia-nscq-580", "nvidia-kernel-common-580-server-580.178.04", None),
        ("nvidia-firmware-580-580.142", "", None),
        ("nvidia-persistenced", "libc6 (>= 2.34)", None),
    ],
)
def test_empty_dependencies_on_the_next_branch(name: str, depends: str, target: str | None) -> None:
    assert successor(name, depends) == target


def test_apt_preferences_and_facts_mean_the_same_families() -> None:
    """apt's patterns know no exceptions, so that they are written differently."""
    for name, is_one in {
        "libnvidia-compute-580": True,
        "libnvidia-cfg1": True,
        "libnvidia-common-580": True,
        "libnvidia-encode-590": True,
        "libnvidia-eglcore": True,
        "libnvidia-ml1": True,
        "nvidia-kernel-open-dkms": True,
        "nvidia-driver-pinning-590": True,
        "nvidia-fabricmanager": True,
        "libnvidia-container1": False,
        "libnvidia-container-tools": False,
        "libnvidia-egl-wayland1": False,
        "nvidia-container-toolkit": False,
        "nvidia-cuda-toolkit": False,
        "cuda-toolkit-13-0": False,
    }.items():
        assert is_driver_package(name) is is_one, name
        assert any(fnmatchcase(name, pattern) for pattern in FAMILIES) is is_one, name


UBUNTU_580 = (
    "libnvidia-compute-580",
    "nvidia-dkms-580-open",
    "nvidia-firmware-580",
    "nvidia-kernel-common-580",
    "nvidia-kernel-source-580-open",
    "nvidia-utils-580",
)
ALWAYS = ("libnvidia-container1", "nvidia-container-toolkit")


@pytest.mark.parametrize(
    ("arguments", "installed", "gone"),
    [
        (("nvidia", "ubuntu2404", "590", "open"), (*UBUNTU_580, "nvidia-persistenced"), UBUNTU_580),
        (("nvidia", "ubuntu2404", "580", "open"), (*UBUNTU_580, "nvidia-persistenced"), ()),
        (
            ("nvidia", "ubuntu2404", "580", "open"),
            ("libnvidia-compute", "nvidia-dkms-open", "nvidia-kernel-common"),
            ("libnvidia-compute", "nvidia-dkms-open", "nvidia-kernel-common"),
        ),
        (
            ("ubuntu", "ubuntu2404", "580", "open"),
            (
                *UBUNTU_580,
                "nvidia-modprobe",
                "nvidia-persistenced",
                "nvidia-firmware-580-server-580.95.05",
            ),
            (*UBUNTU_580, "nvidia-modprobe", "nvidia-persistenced"),
        ),
        (
            ("ubuntu", "ubuntu2404", "595", "proprietary"),
            ("nvidia-firmware-580-server-580.95.05", "nvidia-dkms-595-server-open"),
            ("nvidia-dkms-595-server-open", "nvidia-firmware-580-server-580.95.05"),
        ),
        (
            ("nvidia", "debian12", "590", "open"),
            ("nvidia-kernel-open-dkms", "nvidia-driver-cuda", "libcuda1", "nvidia-modprobe"),
            (),
        ),
        (
            ("nvidia", "debian12", "580", "open"),
            ("nvidia-kernel-dkms", "nvidia-smi", "libcuda1", "nvidia-kernel-common"),
            ("nvidia-kernel-dkms", "nvidia-smi"),
        ),
        (
            ("debian", "debian12", "535", "proprietary"),
            ("nvidia-kernel-open-dkms", "nvidia-driver-cuda", "libcuda1"),
            ("nvidia-driver-cuda", "nvidia-kernel-open-dkms"),
        ),
    ],
)
def test_what_has_to_go_for_other_names(
    arguments: Any, installed: tuple[str, ...], gone: tuple[str, ...]
) -> None:
    assert superseded(package_set(*arguments), (*installed, *ALWAYS)) == tuple(sorted(gone))


def test_a_fabric_manager_by_another_name_goes() -> None:
    wanted = package_set("nvidia", "debian12", "580", "open", fabric=True)
    there = ("nvidia-fabricmanager-570", "nvidia-fabricmanager")
    assert superseded(wanted, there) == ("nvidia-fabricmanager-570",)
