"""A healthy host, as it is wanted and as it is found: what the table breaks one thing of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from farrier.facts.apt import AptFacts, AptSource, RepoKey
from farrier.facts.containers import CdiSpec, ContainerFacts
from farrier.facts.driver import DriverFacts, GpuSeen, Module, Package
from farrier.facts.fabric import FabricFacts, Service
from farrier.facts.kernel import Kernel, KernelFacts
from farrier.facts.machine import Firewall, MachineFacts
from farrier.facts.pci import NVIDIA, NvidiaPci, PciFunction
from farrier.facts.updates import UpdateFacts
from farrier.preflight.basics import Basics, Disk, ModelFound
from farrier.preflight.found import Case, Found
from farrier.preflight.wanted import DriverWanted, Program, Wanted
from farrier.spec import HostSpec, Model

NOW = 1_795_000_000.0
"""The operator's clock: November 2026."""

RUNNING, NEXT = "6.1.0-56-amd64", "6.1.0-57-amd64"
VERSION = "580.95.05"
H100, B200, V100, GTX1080, GRACE = 0x2330, 0x2901, 0x1DB6, 0x1B80, 0x2342
KEYRING = "/etc/apt/keyrings/farrier-nvidia.gpg"
NVIDIAS_KEY = "EB693B3035CD5710E231E123A4B469963BF863CC"

QWEN = Model("qwen", source="path:/srv/models/qwen", gpus=[0, 1, 2, 3], port=8101)
BGE = Model("bge", source="path:/srv/models/bge", gpus=[4], port=8102)
SPEC = HostSpec("gpu01", groups=("gpu",), address="192.0.2.11", models=(QWEN, BGE))
VLLM = Program("vllm 0.32.0", "/opt/farrier/vllm/0.32.0-1f3c5a7b", 14000)
OWN_DRIVER = DriverWanted(source="none")
ROLE = DriverWanted(source="nvidia", branch="580")


def gpu(slot: int, device: int = H100, driver: str = "nvidia") -> PciFunction:
    """The GPU in PCI slot *slot*."""
    return PciFunction(f"0000:{slot:02x}:00.0", NVIDIA, device, 0x0302, driver, slot // 4)


def switch(slot: int) -> PciFunction:
    """An NVSwitch of a Hopper machine."""
    return PciFunction(f"0000:{slot:02x}:00.0", NVIDIA, 0x22A3, 0x0680, "nvidia-nvswitch", 0)


def bus(count: int = 8, device: int = H100, driver: str = "nvidia", switches: int = 4) -> NvidiaPci:
    """*count* GPUs and *switches* NVSwitches."""
    gpus = tuple(gpu(16 + slot, device, driver) for slot in range(count))
    return NvidiaPci((*gpus, *(switch(64 + slot) for slot in range(switches))))


def seen(pci: NvidiaPci, memory_mb: int = 81559) -> tuple[GpuSeen, ...]:
    """What nvidia-smi lists of it."""
    return tuple(
        GpuSeen(index, f"GPU-{index:08}", "NVIDIA H100 80GB HBM3", memory_mb, one.address)
        for index, one in enumerate(pci.gpus)
    )


def packages(version: str = f"{VERSION}-1", held: bool = True, origin: str = "nvidia") -> Any:
    """The driver's packages."""
    names = ("libcuda1", "nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced")
    return tuple(Package(name, version, "installed", held, origin) for name in names)


BUILT = {f"nvidia/{VERSION}": "installed"}
HEALTHY = Found(
    basics=Basics(
        "debian 12",
        {
            "/": Disk(90_000, 5_000_000, "/"),
            "/var": Disk(90_000, 5_000_000, "/"),
            "/opt": Disk(90_000, 5_000_000, "/"),
        },
        models={
            "/srv/models/qwen": ModelFound("ok", 62_500),
            "/srv/models/bge": ModelFound("ok", 2_200),
        },
        time=NOW,
    ),
    pci=bus(),
    driver=DriverFacts(
        loaded=VERSION,
        loaded_flavour="open",
        library=VERSION,
        packages=packages(),
        modules={RUNNING: Module(VERSION, "open"), NEXT: Module(VERSION, "open")},
        gpus=seen(bus()),
    ),
    kernel=KernelFacts(
        running=RUNNING,
        kernels=(
            Kernel(RUNNING, headers=True, image=True, dkms=BUILT),
            Kernel(NEXT, headers=True, image=True, dkms=BUILT),
        ),
        nouveau_blacklisted=True,
        secure_boot=False,
        dkms_installed=True,
        compiler=True,
    ),
    fabric=FabricFacts(
        manager_version=VERSION,
        manager=Service("nvidia-fabricmanager.service", "loaded", "active", "enabled", 0),
        persistenced=Service("nvidia-persistenced.service", "loaded", "active", "enabled", 0),
    ),
    containers=ContainerFacts(
        toolkit="1.18.0",
        runtimes=("docker",),
        configured=("docker",),
        cdi=(CdiSpec("/etc/cdi/nvidia.yaml", VERSION),),
    ),
    updates=UpdateFacts(unattended_enabled=True, needrestart="l"),
    machine=MachineFacts(
        iommu="passthrough",
        hugepages=0,
        hugepage_kb=2048,
        memory_mb=2_063_000,
        transparent_hugepages="madvise",
        host_time=NOW,
        clock_synchronized=True,
        firewall=Firewall("ufw", True, frozenset({22, 8080, 9100, 9810, 9811})),
    ),
    apt=AptFacts(
        sources=(
            AptSource("http://deb.debian.org/debian", ("bookworm",), True),
            AptSource("https://developer.download.nvidia.com/compute/cuda/repos", ("/",), True),
        ),
        keys=(RepoKey(KEYRING, NVIDIAS_KEY),),
    ),
    looked_at=NOW,
)
"""An HGX H100 machine with Debian 12, driver 580.95.05 and vLLM to come."""


def case(
    *, spec: HostSpec = SPEC, role: DriverWanted = OWN_DRIVER, found: Found = HEALTHY, **parts: Any
) -> Case:
    """The healthy host with other *parts*: each replaces a fact, or, as a dict, fields of it."""
    for name, value in parts.items():
        part = replace(getattr(found, name), **value) if isinstance(value, dict) else value
        found = replace(found, **{name: part})
    return Case(Wanted(spec, role, (VLLM,), "ssh admin@192.0.2.11"), found)
