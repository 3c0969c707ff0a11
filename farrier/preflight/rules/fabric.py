"""What NVSwitch hosts need besides the driver, and the persistence daemon."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from farrier.preflight.rules.driver import BOTH, CHANGE
from farrier.preflight.verdict import Code, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farrier.nvidia.versions import DriverVersion
    from farrier.preflight.found import Case

__all__ = ["CODES", "RULES"]

LAST_SUFFIXED = 575
"""The last branch whose fabric manager carries it in its name in NVIDIA's repository."""

_WITHOUT = "without it CUDA fails with error 802 (system not yet initialized) on every GPU"

FABRIC_MISSING = Code(
    "fabric-manager-missing",
    "refuse",
    "The GPUs are joined by NVSwitches and there is no fabric manager: CUDA fails with error 802 on"
    " all of them.",
    "apt-get install -y {package}",
    shown="apt-get install -y 'nvidia-fabricmanager=VERSION-*'   (up to 575: …-BRANCH)",
)
FABRIC_OTHER = Code(
    "fabric-manager-other",
    "refuse",
    "The fabric manager is of another version than the driver: it refuses to start, or has, and"
    " fails at the next start.",
    "apt-get install -y --allow-downgrades --allow-change-held-packages '{package}={version}-*'",
    shown="apt-get install -y --allow-downgrades … 'nvidia-fabricmanager=VERSION-*'",
)
FABRIC_OTHER_ROLE = replace(
    FABRIC_OTHER,
    repair="pyinfra --limit {host} inventory deploys/driver.py",
    where="operator",
)
FABRIC_DOWN = Code(
    "fabric-manager-down",
    "refuse",
    "The fabric manager is installed and does not run.",
    "systemctl enable --now nvidia-fabricmanager.service",
)
NVLSM_MISSING = Code(
    "nvlsm-missing",
    "refuse",
    "NVLink 5's switches (HGX B200, B300) need NVIDIA's subnet manager besides the fabric manager.",
    "apt-get install -y nvlsm && systemctl restart nvidia-fabricmanager.service",
)
IB_UMAD = Code(
    "ib-umad",
    "refuse",
    "The subnet manager reaches NVLink 5's switches through the kernel module ib_umad, which is not"
    " loaded, or will not be at the next boot.",
    "echo ib_umad > {etc}/modules-load.d/ib_umad.conf; modprobe ib_umad",
)
PERSISTENCED_DOWN = Code(
    "persistenced-down",
    "warn",
    "nvidia-persistenced does not run: the driver lets go of idle GPUs, and each start of an engine"
    " initialises them anew (seconds per GPU; settings such as power limits are lost).",
    "systemctl enable --now nvidia-persistenced.service",
)


def _package(case: Case, release: DriverVersion) -> str:
    """The fabric manager's package: Ubuntu's own, and NVIDIA's up to 575, name the branch."""
    driver = case.found.driver
    ubuntus = driver is not None and any(one.origin == "ubuntu" for one in driver.packages)
    if ubuntus or release.branch <= LAST_SUFFIXED:
        return f"nvidia-fabricmanager-{release.branch}"
    return "nvidia-fabricmanager"


def manager(case: Case) -> Iterator[Reason]:
    """Of exactly the driver's version, and running, where there are NVSwitches."""
    fabric, release = case.found.fabric, case.driver
    if fabric is None or not case.wanted.cuda or not case.nvswitch or release is None:
        return
    brings = case.wanted.driver.brings
    if fabric.manager_version is None:
        told = f"its GPUs are joined by NVSwitches, and there is no fabric manager; {_WITHOUT}"
        if brings:
            yield FABRIC_MISSING.left_to(BOTH, case.host, told)
        else:
            package = f"'{_package(case, release)}={release}-*'"
            yield FABRIC_MISSING.reason(told, package=package)
    elif case.installed and fabric.manager_version != str(case.installed):
        told = f"the fabric manager is {fabric.manager_version}, the driver {case.installed}"
        if brings:
            yield FABRIC_OTHER_ROLE.reason(told, deploys=CHANGE, host=case.host)
        else:
            package = _package(case, case.installed)
            yield FABRIC_OTHER.reason(told, package=package, version=case.installed)
    elif fabric.manager.active not in {"active", "activating"} and case.loaded:
        told = f"the fabric manager is {fabric.manager.active or 'not running'}; {_WITHOUT}"
        if brings:
            yield FABRIC_DOWN.left_to(BOTH, case.host, told)
        else:
            yield FABRIC_DOWN.reason(told)


def subnet_manager(case: Case) -> Iterator[Reason]:
    """What NVLink 5's switches need on top."""
    fabric = case.found.fabric
    if fabric is None or not case.wanted.cuda or not case.nvlink5 or case.driver is None:
        return
    brings = case.wanted.driver.brings
    if fabric.nvlsm_version is None:
        told = "its NVSwitches are of NVLink 5, and nvlsm is not installed"
        yield (
            NVLSM_MISSING.left_to(BOTH, case.host, told) if brings else NVLSM_MISSING.reason(told)
        )
    if not fabric.ib_umad_loaded or not fabric.ib_umad_configured:
        when = "loaded" if not fabric.ib_umad_loaded else "loaded at boot"
        told = f"its NVSwitches are of NVLink 5, and the module ib_umad is not {when}"
        if brings:
            yield IB_UMAD.left_to(BOTH, case.host, told)
        else:
            yield IB_UMAD.reason(
                told,
                severity="warn" if fabric.ib_umad_loaded else "refuse",
                etc=case.wanted.spec.roots.etc,
            )


def persistence(case: Case) -> Iterator[Reason]:
    """The persistence daemon, where a driver is loaded."""
    fabric = case.found.fabric
    if fabric is None or not case.wanted.cuda or not case.loaded:
        return
    if fabric.persistenced.present and fabric.persistenced.active != "active":
        told = f"nvidia-persistenced is {fabric.persistenced.active}"
        if case.wanted.driver.brings:
            yield PERSISTENCED_DOWN.left_to(BOTH, case.host, told)
        else:
            yield PERSISTENCED_DOWN.reason(told)


CODES = (
    FABRIC_MISSING,
    FABRIC_OTHER,
    FABRIC_DOWN,
    NVLSM_MISSING,
    IB_UMAD,
    PERSISTENCED_DOWN,
)
RULES = (manager, subnet_manager, persistence)
