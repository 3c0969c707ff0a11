"""What rows of the table of broken hosts are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace

from farrier.facts.driver import Module, Package
from farrier.facts.fabric import Service
from farrier.facts.kernel import Kernel
from farrier.preflight.basics import Disk, Listener
from farrier.preflight.found import Case
from farrier.spec import Model
from tests.unit.preflight_hosts import (
    B200,
    BUILT,
    HEALTHY,
    NEXT,
    QWEN,
    RUNNING,
    SPEC,
    bus,
    packages,
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
