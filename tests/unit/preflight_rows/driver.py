"""The driver itself."""

from __future__ import annotations

from dataclasses import replace

from farrier.facts.containers import CdiSpec
from farrier.facts.driver import Package
from tests.unit.preflight_hosts import (
    ROLE,
    case,
    packages,
)
from tests.unit.preflight_rows.parts import (
    BARE,
    BRING,
    DRIVER_DEPLOY,
    LLM_DEPLOY,
    NO_FABRIC,
    NOT_LOADED,
    OLD,
    OLDER,
    Row,
)

ROWS = {
    # The driver
    "no driver, and nobody brings one": Row(
        case(driver=BARE, kernel={"dkms_installed": False}, fabric=NO_FABRIC),
        "refused",
        "driver-missing",
        BRING,
        "inventory",
    ),
    "left-overs of a driver": Row(
        case(driver=BARE | {"packages": packages()[-1:]}, fabric=NO_FABRIC),
        "refused",
        "driver-missing",
        BRING,
        "inventory",
    ),
    "no driver, and the role brings one": Row(
        case(role=ROLE, driver=BARE, kernel={"dkms_installed": False}, fabric=NO_FABRIC),
        "attention",
        "driver-missing",
        LLM_DEPLOY,
        "operator",
    ),
    "a driver that is too old for the engine": Row(
        case(driver=OLDER, fabric={"manager_version": OLD}, containers={"cdi": ()}),
        "refused",
        "driver-too-old",
        BRING,
        "inventory",
    ),
    "a driver that is too old, and a role for it": Row(
        case(
            role=ROLE,
            driver=OLDER,
            fabric={"manager_version": OLD},
            containers={"cdi": (CdiSpec("/etc/cdi/nvidia.yaml", OLD),)},
        ),
        "refused",
        "driver-too-old",
        DRIVER_DEPLOY,
        "operator",
    ),
    "an inventory that wants a driver that is too old": Row(
        case(role=replace(ROLE, branch="570")),
        "refused",
        "plan-too-old",
        'nvidia_driver_branch = "580", nvidia_driver_version = None',
        "inventory",
    ),
    "an exact version that is too old": Row(
        case(role=replace(ROLE, version="580.57.02")),
        "refused",
        "plan-too-old",
        'nvidia_driver_branch = "580", nvidia_driver_version = None',
        "inventory",
    ),
    "a driver of another branch than the inventory's": Row(
        case(role=replace(ROLE, branch="590")),
        "attention",
        "driver-other",
        DRIVER_DEPLOY,
        "operator",
    ),
    "libraries upgraded under the running driver": Row(
        case(driver={"library": "580.105.08", "smi_error": "Driver/library version mismatch"}),
        "refused",
        "library-mismatch",
        "systemctl reboot",
    ),
    "a module without libraries": Row(
        case(driver={"library": None}),
        "refused",
        "library-missing",
        "apt-get install -y libcuda1 nvidia-smi",
    ),
    "the same on Ubuntu": Row(
        case(driver={"library": None}, basics={"system": "ubuntu 24.04"}),
        "refused",
        "library-missing",
        "apt-get install -y libnvidia-compute-580-server",
    ),
    "a driver that is not loaded": Row(
        case(driver=NOT_LOADED), "refused", "driver-not-loaded", "modprobe nvidia"
    ),
    "a driver that is not loaded, and a role for it": Row(
        case(role=ROLE, driver=NOT_LOADED), "attention", "driver-not-loaded", "modprobe nvidia"
    ),
    "nvidia-smi fails": Row(
        case(driver={"gpus": (), "smi_error": "Unable to determine the device handle"}),
        "refused",
        "nvidia-smi-fails",
        "systemctl reboot",
    ),
    "nvidia-smi fails for want of a library, which the role brings": Row(
        case(role=ROLE, driver={"library": None, "smi_error": "couldn't find libnvidia-ml.so"}),
        "attention",
        "library-missing",
        "pyinfra --limit gpu01 inventory deploys/llm.py",
        "operator",
    ),
    "packages of two archives": Row(
        case(
            driver={
                "packages": (
                    *packages(),
                    Package("nvidia-smi", "535.1-1", held=True, origin="debian"),
                )
            }
        ),
        "attention",
        "mixed-sources",
        "apt-get purge -y nvidia-smi",
    ),
    "NVIDIA's own installer was here": Row(
        case(driver={"runfile": True, "packages": ()}),
        "attention",
        "runfile",
        "nvidia-uninstall --silent",
    ),
    "NVIDIA's own installer was here, and the role brings packages": Row(
        case(role=ROLE, driver={"runfile": True, "packages": ()}),
        "refused",
        "runfile",
        "nvidia-uninstall --silent",
    ),
    "packages that nothing holds": Row(
        case(driver={"packages": packages(held=False)}, updates={"unattended_enabled": False}),
        "attention",
        "not-held",
        "apt-mark hold libcuda1 nvidia-driver-cuda nvidia-kernel-open-dkms nvidia-persistenced",
    ),
    "packages that nothing holds, and a role for it": Row(
        case(
            role=ROLE,
            driver={"packages": packages(held=False)},
            updates={"unattended_enabled": False},
        ),
        "attention",
        "not-held",
        LLM_DEPLOY,
        "operator",
    ),
}
