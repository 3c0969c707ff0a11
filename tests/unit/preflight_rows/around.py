"""What is around the driver: kernels, fabric, containers."""

from __future__ import annotations

from dataclasses import replace

from farrier.facts.containers import CdiSpec
from farrier.facts.driver import Module
from farrier.facts.fabric import Service
from farrier.facts.kernel import Kernel
from farrier.spec import Model
from tests.unit.preflight_hosts import (
    BUILT,
    HEALTHY,
    NEXT,
    ROLE,
    RUNNING,
    SPEC,
    VERSION,
    case,
    seen,
)
from tests.unit.preflight_rows.parts import (
    BARE,
    DRIVER_DEPLOY,
    NO_FABRIC,
    NOT_LOADED,
    NVLINK5,
    OLD,
    Row,
    kernels,
)

ARCHIVE = "/srv/images/tgi.tar"
IN_AN_IMAGE = replace(
    SPEC,
    models=(
        Model(
            "chat",
            engine="tgi",
            source="path:/srv/models/qwen",
            gpus=[0],
            image_archive=f"{ARCHIVE}@sha256:{'ab' * 32}",
            command=["/tgi-entrypoint.sh", "--hostname", "{host}", "--port", "{port}"],
        ),
    ),
)
_THERE = case(spec=IN_AN_IMAGE)

ROWS = {
    # Kernels
    "nouveau has the GPUs": Row(
        case(
            driver=NOT_LOADED,
            kernel={"nouveau_loaded": True, "nouveau_blacklisted": False},
        ),
        "refused",
        "nouveau-loaded",
        "mkdir -p /etc/modprobe.d; printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' >"
        " /etc/modprobe.d/no-nouveau.conf; update-initramfs -u; systemctl reboot",
    ),
    "nouveau may take the GPUs": Row(
        case(driver=NOT_LOADED, kernel={"nouveau_blacklisted": False}),
        "refused",
        "nouveau-allowed",
        "mkdir -p /etc/modprobe.d; printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' >"
        " /etc/modprobe.d/no-nouveau.conf; ! command -v update-initramfs || update-initramfs -u",
    ),
    "no headers for the newest kernel": Row(
        case(kernel=kernels(headers=False, dkms={})),
        "attention",
        "headers-missing",
        f"apt-get install -y linux-headers-{NEXT}",
    ),
    "no headers for the running kernel": Row(
        case(
            kernel={"kernels": (Kernel(RUNNING, image=True, dkms=BUILT), HEALTHY.kernel.kernels[1])}  # type: ignore[union-attr]
        ),
        "attention",
        "headers-missing",
        f"apt-get install -y linux-headers-{RUNNING}",
    ),
    "no module for the next boot": Row(
        case(
            kernel=kernels(dkms={f"nvidia/{VERSION}": "added"}),
            driver={"modules": {RUNNING: Module(VERSION, "open")}},
        ),
        "attention",
        "dkms-not-built",
        f"dkms autoinstall -k {NEXT}",
    ),
    "no module for the running kernel": Row(
        case(
            kernel={
                "kernels": (
                    Kernel(RUNNING, headers=True, image=True, dkms={f"nvidia/{VERSION}": "added"}),
                )
            },
            driver=NOT_LOADED | {"modules": {}},
        ),
        "refused",
        "dkms-not-built",
        f"dkms autoinstall -k {RUNNING}",
    ),
    "Secure Boot and a key that is not enrolled": Row(
        case(driver=NOT_LOADED, kernel={"secure_boot": True, "mok_enrolled": False}),
        "refused",
        "secure-boot",
        "mokutil --import /var/lib/dkms/mok.pub && systemctl reboot",
    ),
    "Secure Boot, and a driver to come": Row(
        case(
            role=ROLE,
            basics={"system": "ubuntu 24.04"},
            driver=BARE,
            kernel={"secure_boot": True, "dkms_installed": False},
            fabric=NO_FABRIC,
        ),
        "attention",
        "secure-boot",
        "mokutil --import /var/lib/shim-signed/mok/MOK.der && systemctl reboot",
    ),
    # Fabric manager and persistence
    "NVSwitches without a fabric manager": Row(
        case(fabric=NO_FABRIC),
        "refused",
        "fabric-manager-missing",
        f"apt-get install -y 'nvidia-fabricmanager={VERSION}-*'",
    ),
    "a fabric manager of another version": Row(
        case(fabric={"manager_version": "580.82.07"}),
        "refused",
        "fabric-manager-other",
        "apt-get install -y --allow-downgrades --allow-change-held-packages"
        f" 'nvidia-fabricmanager={VERSION}-*'",
    ),
    "a fabric manager of another version, and a role for it": Row(
        case(role=ROLE, fabric={"manager_version": "580.82.07"}),
        "refused",
        "fabric-manager-other",
        DRIVER_DEPLOY,
        "operator",
    ),
    "a fabric manager that does not run": Row(
        case(
            fabric={
                "manager": Service("nvidia-fabricmanager.service", "loaded", "failed", "enabled", 3)
            }
        ),
        "refused",
        "fabric-manager-down",
        "systemctl enable --now nvidia-fabricmanager.service",
    ),
    "NVLink 5 without its subnet manager": Row(
        case(
            pci=NVLINK5,
            driver={"gpus": seen(NVLINK5)},
            fabric={"ib_umad_loaded": True, "ib_umad_configured": True},
        ),
        "refused",
        "nvlsm-missing",
        "apt-get install -y nvlsm && systemctl restart nvidia-fabricmanager.service",
    ),
    "NVLink 5 without ib_umad": Row(
        case(pci=NVLINK5, driver={"gpus": seen(NVLINK5)}, fabric={"nvlsm_version": "2025.06.6"}),
        "refused",
        "ib-umad",
        "echo ib_umad > /etc/modules-load.d/ib_umad.conf; modprobe ib_umad",
    ),
    "no persistence daemon": Row(
        case(
            fabric={
                "persistenced": Service(
                    "nvidia-persistenced.service", "loaded", "inactive", "disabled", 0
                )
            }
        ),
        "attention",
        "persistenced-down",
        "systemctl enable --now nvidia-persistenced.service",
    ),
    # Containers
    "CDI of another driver": Row(
        case(containers={"cdi": (CdiSpec("/etc/cdi/nvidia.yaml", OLD),)}),
        "attention",
        "cdi-stale",
        "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
    ),
    "no CDI": Row(
        case(containers={"cdi": ()}),
        "attention",
        "cdi-missing",
        "mkdir -p /etc/cdi; nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
    ),
    "device nodes without links": Row(
        case(containers={"dev_char_missing": ("nvidia0", "nvidiactl")}),
        "attention",
        "dev-char-missing",
        "nvidia-ctk system create-dev-char-symlinks --create-all",
    ),
    "an image is to have GPUs that nobody can give it": Row(
        case(spec=IN_AN_IMAGE, containers={"cdi": (), "toolkit": None}),
        "refused",
        "image-without-cdi",
        "nvidia_container_toolkit = True",
        "inventory",
    ),
    "an image archive is not there": Row(
        replace(_THERE, wanted=replace(_THERE.wanted, no_archives=frozenset({ARCHIVE}))),
        "refused",
        "image-archive-missing",
        f"ls -l {ARCHIVE}",
        "operator",
    ),
}
