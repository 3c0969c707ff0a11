"""The machine, its upgrades and its sources of packages."""

from __future__ import annotations

from dataclasses import replace

from farrier.facts.apt import AptSource, RepoKey
from tests.unit.preflight_hosts import (
    KEYRING,
    NOW,
    ROLE,
    case,
    packages,
    seen,
)
from tests.unit.preflight_rows.parts import (
    LLM_DEPLOY,
    PCIE,
    TWO_ON_PCIE,
    Row,
)

ROWS = {
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
