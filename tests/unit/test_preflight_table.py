"""Broken hosts: a healthy one with one thing broken each, its verdict, the line that repairs it.

Hosts that are really broken, and really repaired by the line, are in
tests/lab/test_preflight_on_hosts.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import pytest

from farrier.facts.apt import AptSource, RepoKey
from farrier.facts.containers import CdiSpec
from farrier.facts.driver import Module, Package
from farrier.facts.fabric import Service
from farrier.facts.kernel import Kernel
from farrier.facts.machine import Firewall
from farrier.preflight.basics import Disk, Listener, ModelFound
from farrier.preflight.found import Case, Found
from farrier.preflight.judge import AREAS, CODES, judge
from farrier.preflight.page import PAGE, page
from farrier.preflight.reach import CODES as REACH
from farrier.preflight.verdict import Code, Reason, Verdict
from farrier.preflight.wanted import DriverWanted
from farrier.spec import HostSpec, Model
from tests.unit.preflight_hosts import (
    B200,
    BGE,
    BUILT,
    GRACE,
    GTX1080,
    HEALTHY,
    KEYRING,
    NEXT,
    NOW,
    QWEN,
    ROLE,
    RUNNING,
    SPEC,
    V100,
    VERSION,
    bus,
    case,
    gpu,
    packages,
    seen,
)


@dataclass(frozen=True)
class Row:
    """A broken host: *verdict*, *code* and the whole *repair*, typed *where*."""

    broken: Case
    verdict: str
    code: str
    repair: str
    where: str = "host"


DRIVER_DEPLOY = "pyinfra --limit gpu01 inventory deploys/driver.py"
LLM_DEPLOY = "pyinfra --limit gpu01 inventory deploys/llm.py"
BRING = (
    'nvidia_driver_source = "nvidia", nvidia_driver_branch = "580"; then: '
    "pyinfra --limit gpu01 inventory deploys/driver.py"
)
FOREIGN = Package("nvidia-smi", "535.309.01-1", held=True, origin="debian")
BARE: dict[str, object] = {
    "loaded": None,
    "loaded_flavour": None,
    "library": None,
    "packages": (),
    "modules": {},
    "gpus": (),
}
"""No driver at all."""

OLD = "570.195.03"
OLDER = {
    "loaded": OLD,
    "library": OLD,
    "packages": packages(f"{OLD}-1"),
    "modules": {RUNNING: Module(OLD, "open"), NEXT: Module(OLD, "open")},
}
NOT_LOADED = {"loaded": None, "loaded_flavour": None, "gpus": ()}
NO_FABRIC = {"manager_version": None, "manager": Service("nvidia-fabricmanager.service")}
CUSTOM = replace(SPEC, models=(Model("old", engine="custom", gpus=[0, 1], command=["/bin/serve"]),))
TWO_ON_PCIE = replace(SPEC, models=(replace(QWEN, gpus=(0, 1)),))
PCIE = bus(2, switches=0)
NVLINK5 = bus(8, B200)


def disks(**free: Disk) -> dict[str, dict[str, Disk]]:
    by_path = {f"/{name}" if name != "root" else "/": disk for name, disk in free.items()}
    return {"disks": {**HEALTHY.basics.disks, **by_path}}


def kernels(**changes: object) -> dict[str, object]:
    """The running kernel, and the newest one with *changes*."""
    running = Kernel(RUNNING, headers=True, image=True, dkms=BUILT)
    newest = Kernel(NEXT, headers=True, image=True, dkms=BUILT)
    return {"kernels": (running, replace(newest, **changes))}  # type: ignore[arg-type]


def listening(port: int, unit: str, pid: int = 4711) -> dict[str, object]:
    return {"listeners": (Listener(port, "python3", pid, unit),)}


def copied(name: str) -> str:
    return (
        f"tar -C {name} -cf - . | ssh admin@192.0.2.11"
        f" 'sudo mkdir -p /srv/models/{name} && sudo tar -C /srv/models/{name} -xf -'"
    )


TABLE = {
    # System, disks, ports
    "another distribution": Row(
        case(basics={"system": "fedora 43"}),
        "refused",
        "os-unsupported",
        "reinstall gpu01 with Debian 12 or 13, or Ubuntu 22.04 or 24.04; farrier preflight gpu01",
        "operator",
    ),
    "no room for packages": Row(
        case(basics=disks(var=Disk(12, 90_000, "/var"))),
        "refused",
        "disk-full",
        "apt-get clean; journalctl --vacuum-size=200M",
    ),
    "no room for the engine's environment": Row(
        case(basics=disks(opt=Disk(9_000, 900_000, "/opt"))),
        "refused",
        "disk-too-small",
        "apt-get clean; journalctl --vacuum-size=200M; du -xsm /opt/* /opt/farrier/*/* | sort -n",
    ),
    "no inodes": Row(
        case(basics=disks(opt=Disk(90_000, 120, "/opt"))),
        "refused",
        "inodes-gone",
        "du -x --inodes /opt | sort -n | tail -n 20",
    ),
    "a foreign unit on nginx's port": Row(
        case(basics=listening(8080, "caddy.service")),
        "refused",
        "port-taken",
        "systemctl disable --now caddy.service",
    ),
    "somebody's process on an engine's port": Row(
        case(basics=listening(8101, "session-3.scope")), "refused", "port-taken", "kill 4711"
    ),
    "ufw without nginx's port": Row(
        case(machine={"firewall": Firewall("ufw", True, frozenset({22, 9100, 9810}))}),
        "attention",
        "firewall-drops",
        "ufw allow 8080/tcp",
    ),
    "iptables that drop everything": Row(
        case(machine={"firewall": Firewall("iptables", True, frozenset({22}))}),
        "attention",
        "firewall-drops",
        "iptables -I INPUT -p tcp -m multiport --dports 8080,9100,9810 -j ACCEPT",
    ),
    "nftables without nginx's port": Row(
        case(machine={"firewall": Firewall("nftables", True, frozenset({22, 9100, 9810}))}),
        "attention",
        "firewall-drops",
        """nft insert rule $(nft list ruleset | awk '/^table/ {t = $2 " " $3}"""
        """ /^\\tchain/ {c = $2} /hook input/ && (!at || /policy drop/) {at = t " " c}"""
        """ END {print at}') tcp dport '{ 8080 }' accept""",
    ),
    # Models
    "no model": Row(
        case(basics={"models": {"/srv/models/qwen": ModelFound("no-directory")}}),
        "refused",
        "model-missing",
        copied("qwen"),
        "operator",
    ),
    "a directory that is no model": Row(
        case(basics={"models": {"/srv/models/bge": ModelFound("no-config.json")}}),
        "refused",
        "model-incomplete",
        copied("bge"),
        "operator",
    ),
    "a model that was copied half": Row(
        case(
            basics={
                "models": {
                    "/srv/models/qwen": ModelFound("shards", 31_000, ("model-00002.safetensors",))
                }
            }
        ),
        "refused",
        "model-incomplete",
        copied("qwen"),
        "operator",
    ),
    # GPUs
    "no GPU": Row(
        case(pci=bus(0, switches=0), driver={"gpus": ()}),
        "refused",
        "no-gpu",
        'accelerator = "cpu"',
        "inventory",
    ),
    "a CUDA host without a GPU that serves nothing": Row(
        case(spec=replace(SPEC, models=()), pci=bus(0, switches=0), driver={"gpus": ()}),
        "attention",
        "no-gpu",
        'accelerator = "cpu"',
        "inventory",
    ),
    "fewer GPUs than the replicas name": Row(
        case(pci=bus(4), driver={"gpus": seen(bus(4))}),
        "refused",
        "too-few-gpus",
        "models: gpus=[…] of gpu01 may name 0 to 3",
        "inventory",
    ),
    "a GPU that fell off the bus": Row(
        case(driver={"gpus": seen(bus())[:7]}), "refused", "gpu-lost", "systemctl reboot"
    ),
    "GPUs that belong to virtual machines": Row(
        case(
            pci={"functions": tuple(gpu(16 + slot, driver="vfio-pci") for slot in range(8))},
            driver={"gpus": ()},
        ),
        "refused",
        "gpu-vfio",
        "for gpu in "
        + " ".join(f"0000:{16 + slot:02x}:00.0" for slot in range(8))
        + "; do d=/sys/bus/pci/devices/$gpu; echo > $d/driver_override;"
        " echo $gpu > $d/driver/unbind; echo $gpu > /sys/bus/pci/drivers_probe; done",
    ),
    "a spare GPU that belongs to a virtual machine": Row(
        case(
            pci={"functions": (*bus(7).functions, gpu(23, driver="vfio-pci"))},
            driver={"gpus": seen(bus(7))},
        ),
        "attention",
        "gpu-vfio",
        "for gpu in 0000:17:00.0; do d=/sys/bus/pci/devices/$gpu; echo > $d/driver_override;"
        " echo $gpu > $d/driver/unbind; echo $gpu > /sys/bus/pci/drivers_probe; done",
    ),
    "weights larger than the GPUs": Row(
        case(
            basics={
                "models": {
                    "/srv/models/qwen": ModelFound("ok", 440_000),
                    "/srv/models/bge": ModelFound("ok", 2_200),
                }
            }
        ),
        "refused",
        "gpu-memory",
        "models: qwen needs gpus=[…] with at least 440000 MiB together",
        "inventory",
    ),
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
    # Generations
    "Blackwell with the proprietary module": Row(
        case(
            pci=bus(8, B200, switches=0),
            driver={"loaded_flavour": "proprietary", "gpus": seen(bus(8, B200))},
        ),
        "refused",
        "flavour-wrong",
        f'nvidia_driver_source = "nvidia"; then: {DRIVER_DEPLOY}',
        "inventory",
    ),
    "Blackwell with the proprietary module, and a role for it": Row(
        case(
            role=ROLE,
            pci=bus(8, B200, switches=0),
            driver={"loaded_flavour": "proprietary", "gpus": seen(bus(8, B200))},
        ),
        "refused",
        "flavour-wrong",
        DRIVER_DEPLOY,
        "operator",
    ),
    "Grace Hopper with the proprietary module": Row(
        case(
            pci=bus(8, GRACE),
            driver={"loaded_flavour": "proprietary", "gpus": seen(bus(8, GRACE))},
        ),
        "refused",
        "flavour-wrong",
        f'nvidia_driver_source = "nvidia"; then: {DRIVER_DEPLOY}',
        "inventory",
    ),
    "Pascal with the open module": Row(
        case(spec=CUSTOM, pci=bus(5, GTX1080, switches=0), driver={"gpus": seen(bus(5, GTX1080))}),
        "refused",
        "flavour-wrong",
        f'nvidia_driver_source = "nvidia"; then: {DRIVER_DEPLOY}',
        "inventory",
    ),
    "an inventory that wants the open module for Volta": Row(
        case(
            spec=CUSTOM,
            role=replace(ROLE, flavour="open"),
            pci=bus(8, V100, switches=0),
            driver={"loaded_flavour": "proprietary", "gpus": seen(bus(8, V100))},
        ),
        "refused",
        "plan-flavour-wrong",
        'nvidia_driver_flavour = "auto"',
        "inventory",
    ),
    "a branch that dropped Volta": Row(
        case(
            spec=CUSTOM,
            role=replace(ROLE, branch="590"),
            pci=bus(8, V100, switches=0),
            driver={"loaded_flavour": "proprietary", "gpus": seen(bus(8, V100))},
        ),
        "refused",
        "generation-dropped",
        'nvidia_driver_branch = "580", nvidia_driver_version = None; then: ' + DRIVER_DEPLOY,
        "inventory",
    ),
    "vLLM for CUDA 13 on Volta": Row(
        case(
            pci=bus(8, V100, switches=0),
            driver={"loaded_flavour": "proprietary", "gpus": seen(bus(8, V100))},
        ),
        "refused",
        "generation-cuda",
        'models: engine="custom" with a program built for these GPUs, on gpu01',
        "inventory",
    ),
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
    # The machine
    "a clock that is wrong": Row(
        case(basics={"time": NOW - 4_000}),
        "attention",
        "clock-skew",
        "apt-get install -y systemd-timesyncd && timedatectl set-ntp true",
    ),
    "a clock that nothing keeps right": Row(
        case(machine={"clock_synchronized": False}),
        "attention",
        "clock-unsynchronised",
        "apt-get install -y systemd-timesyncd && timedatectl set-ntp true",
    ),
    "an IOMMU between the GPUs": Row(
        case(
            spec=TWO_ON_PCIE,
            pci=PCIE,
            driver={"gpus": seen(PCIE)},
            machine={"iommu": "translated"},
        ),
        "attention",
        "iommu-translated",
        "sed -i 's/^GRUB_CMDLINE_LINUX=\"/&iommu=pt /' /etc/default/grub && update-grub"
        " && systemctl reboot",
    ),
    "ACS between the GPUs": Row(
        case(
            spec=TWO_ON_PCIE,
            pci=PCIE,
            driver={"gpus": seen(PCIE)},
            machine={"acs": ("0000:00:01.0", "0000:00:03.0")},
        ),
        "attention",
        "acs-on",
        "for b in 0000:00:01.0 0000:00:03.0; do setpci -s $b ECAP_ACS+0x6.w=0000; done",
    ),
    "memory in huge pages": Row(
        case(machine={"hugepages": 524_288}),
        "attention",
        "hugepages-reserved",
        "sysctl -w vm.nr_hugepages=0;"
        " sed -i '/^vm.nr_hugepages/d' /etc/sysctl.conf /etc/sysctl.d/*.conf",
    ),
    # What happens while nobody looks
    "unattended-upgrades would take the driver": Row(
        case(
            driver={"packages": packages(held=False)},
            updates={"touchable": ("libcuda1", "nvidia-persistenced")},
        ),
        "attention",
        "unattended-upgrades",
        "apt-mark hold libcuda1 nvidia-persistenced",
    ),
    "needrestart would restart engines": Row(
        case(updates={"needrestart": "a", "needrestart_spares": False}),
        "attention",
        "needrestart",
        "mkdir -p /etc/needrestart/conf.d; echo '$nrconf{override_rc}{qr(^(engine-|nginx|"
        "farrier-agent))} = 0;' > /etc/needrestart/conf.d/farrier.conf",
    ),
    "a reboot that is owed": Row(
        case(updates={"reboot_required": True, "reboot_because": ("linux-image-amd64",)}),
        "attention",
        "reboot-required",
        "systemctl reboot",
    ),
    # apt
    "dpkg was interrupted": Row(
        case(apt={"interrupted": True}),
        "attention",
        "dpkg-interrupted",
        "dpkg --configure -a --force-confold",
    ),
    "broken packages": Row(
        case(apt={"broken": "nvidia-driver-cuda : Depends: libcuda1 (= 580.82.07-1)"}),
        "refused",
        "packages-broken",
        "apt-get --fix-broken install -y",
    ),
    "a source that does not answer": Row(
        case(
            apt={
                "sources": (
                    AptSource("http://deb.debian.org/debian", ("bookworm",), True),
                    AptSource("http://192.0.2.1/apt/", ("stable",), False, "Connection timed out"),
                )
            }
        ),
        "attention",
        "source-unreachable",
        "sed -i -e '\\|^deb .*http://192.0.2.1/apt|s/^/# /'"
        " -e '\\|^URIs:.*http://192.0.2.1/apt|i Enabled: no'"
        " $(grep -rlF 'http://192.0.2.1/apt' /etc/apt/sources.list /etc/apt/sources.list.d)",
    ),
    "no source answers": Row(
        case(
            apt={
                "sources": (
                    AptSource("http://deb.debian.org/debian", ("bookworm",), False, "Temporary"),
                )
            }
        ),
        "refused",
        "no-source",
        "getent hosts deb.debian.org && curl -sSI http://deb.debian.org/debian; apt-get update",
    ),
    "another key than the inventory's": Row(
        case(role=replace(ROLE, key_fingerprint="AB" * 20)),
        "attention",
        "key-wrong",
        LLM_DEPLOY,
        "operator",
    ),
    "a key that expired": Row(
        case(apt={"keys": (RepoKey("/usr/share/keyrings/cuda.gpg", "CD" * 20, NOW - 86_400),)}),
        "attention",
        "key-expired",
        "k=$(mktemp -d)/keyring.deb && curl -fsSLo $k https://developer.download.nvidia.com/compute"
        "/cuda/repos/debian12/x86_64/cuda-keyring_1.1-1_all.deb && dpkg -i $k && apt-get update",
    ),
    "a key bound by SHA-1 on Debian 13": Row(
        case(
            role=ROLE,
            basics={"system": "debian 13"},
            apt={"sqv": True, "keys": (RepoKey(KEYRING, "EF" * 20, None, sha1_bound=True),)},
        ),
        "attention",
        "key-sha1",
        LLM_DEPLOY,
        "operator",
    ),
}


def reasons(verdict: Verdict, code: str) -> list[Reason]:
    return [reason for reason in verdict.reasons if reason.code == code]


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_the_verdict_and_the_line_that_repairs_it(row: Row) -> None:
    verdict = judge(row.broken)
    assert verdict.state == row.verdict, verdict
    (reason,) = reasons(verdict, row.code)
    assert reason.repair == row.repair
    assert reason.where == row.where
    # One line, told once.
    assert "\n" not in reason.repair
    assert len(set(verdict.reasons)) == len(verdict.reasons)


@pytest.mark.parametrize("driver", [DriverWanted(), ROLE], ids=["own driver", "the role's"])
def test_a_healthy_host_is_ready(driver: DriverWanted) -> None:
    verdict = judge(case(role=driver))
    assert verdict.reasons == ()
    assert verdict.state == "ready"


def test_a_host_without_gpus_has_nothing_to_do_with_nvidia() -> None:
    gone: dict[str, Any] = {"pci": bus(0, switches=0), "driver": BARE, "fabric": NO_FABRIC}
    gone |= {"machine": {"firewall": Firewall()}}
    monitor = HostSpec("gw01", groups=("monitor", "gateway"))
    assert judge(case(spec=monitor, **gone)).reasons == ()
    model = replace(BGE, gpus=())
    cpu = HostSpec("gpu02", groups=("gpu",), accelerator="cpu", models=(model,))
    assert judge(case(spec=cpu, **gone)).reasons == ()


def test_every_code_is_in_the_table() -> None:
    """Those of hosts that cannot be reached are in test_preflight_reach.py."""
    told = {row.code for row in TABLE.values()}
    assert told == CODES.keys() - {code.name for code in REACH}
    assert sum(len(codes) for codes in AREAS.values()) == len(CODES), "a name is used twice"
    assert len(TABLE) >= 40


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_a_code_is_documented(code: Code) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code.name)
    assert code.meaning.endswith(".")


def test_both_versions_are_named() -> None:
    (old,) = reasons(
        judge(TABLE["a driver that is too old for the engine"].broken), "driver-too-old"
    )
    assert OLD in old.message
    assert "580.65.06" in old.message
    assert "CUDA 13.0" in old.message
    (missing,) = reasons(judge(TABLE["no driver, and nobody brings one"].broken), "driver-missing")
    assert "none" in missing.message
    assert "580.65.06" in missing.message


def test_a_deploy_is_silent_about_what_its_roles_repair() -> None:
    bare = judge(TABLE["no driver, and the role brings one"].broken)
    assert bare.within("llm").state == "ready"
    old = judge(TABLE["a driver that is too old, and a role for it"].broken)
    assert old.within("llm").state == "refused"
    assert old.within("driver").state == "ready", old.within("driver")


def test_what_was_not_asked_gives_no_reason() -> None:
    assert judge(Case(case().wanted, Found(HEALTHY.basics, looked_at=NOW))).reasons == ()


def test_a_firewall_that_trusts_the_site_is_no_reason() -> None:
    closed = Firewall("nftables", True, frozenset({22}), ("10.0.0.0/8",))
    assert judge(case(machine={"firewall": closed})).reasons == ()
    docker = replace(closed, trusted=("docker0",))
    assert judge(case(machine={"firewall": docker})).state == "attention"


def test_unknown_sizes_give_no_reason() -> None:
    shared = tuple(replace(one, memory_mb=None) for one in seen(bus()))
    assert judge(case(driver={"gpus": shared})).reasons == ()
    unmeasured = {path: ModelFound("ok") for path in HEALTHY.basics.models}
    assert judge(case(basics={"models": unmeasured})).reasons == ()


def test_quantised_while_loading_weights_may_be_larger_than_the_memory() -> None:
    fp8 = replace(QWEN, args={"quantization": "fp8"})
    large = {path: ModelFound("ok", 440_000) for path in HEALTHY.basics.models}
    verdict = judge(case(spec=replace(SPEC, models=(fp8,)), basics={"models": large}))
    assert verdict.reasons == ()


def test_every_reason_is_told_at_once_refusals_first() -> None:
    verdict = judge(
        case(
            basics={"system": "fedora 43", "time": NOW - 4_000, **listening(8080, "caddy.service")},
            driver={"library": "580.105.08"},
            updates={"reboot_required": True},
        )
    )
    assert verdict.state == "refused"
    assert [reason.code for reason in verdict.refusals] == [
        "os-unsupported",
        "port-taken",
        "library-mismatch",
    ]
    assert [reason.code for reason in verdict.warnings] == ["clock-skew", "reboot-required"]


def test_the_page_says_what_the_rules_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: make docs"


@pytest.mark.parametrize("name", CODES)
def test_every_code_is_on_the_page(name: str) -> None:
    assert f"| `{name}` |" in page()
