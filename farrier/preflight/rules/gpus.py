"""The GPUs themselves: on the bus, enough of them, large enough, and free for NVIDIA's driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farrier.preflight.rules.models import model_path
from farrier.preflight.verdict import Code, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farrier.preflight.found import Case

__all__ = ["CODES", "RULES"]

NO_GPU = Code(
    "no-gpu",
    "refuse",
    "No NVIDIA GPU is on the PCI bus of a host that serves models on GPUs. Or it is a CPU host.",
    'accelerator = "cpu"',
    "inventory",
)
TOO_FEW_GPUS = Code(
    "too-few-gpus",
    "refuse",
    "The replicas name GPUs (gpus=[…]) that the host does not have.",
    "models: gpus=[…] of {host} may name {there}",
    "inventory",
)
GPU_LOST = Code(
    "gpu-lost",
    "refuse",
    "A GPU is on the bus, but the loaded driver does not serve it: it fell off (Xid 79), or failed"
    " to start. dmesg | grep -i xid says more.",
    "systemctl reboot",
)
GPU_VFIO = Code(
    "gpu-vfio",
    "refuse",
    "A GPU is handed to virtual machines (vfio-pci): NVIDIA's driver cannot have it. What binds it"
    " at boot is in /etc/modprobe.d or the kernel's command line (vfio-pci.ids=).",
    "for gpu in {addresses}; do d=/sys/bus/pci/devices/$gpu; echo > $d/driver_override;"
    " echo $gpu > $d/driver/unbind; echo $gpu > /sys/bus/pci/drivers_probe; done",
)
GPU_MEMORY = Code(
    "gpu-memory",
    "refuse",
    "A model's weights alone are larger than the memory of the GPUs it is given: the engine would"
    " end with out of memory. Give it more GPUs, or a smaller or quantised model.",
    "models: {model} needs gpus=[…] with at least {needed} MiB together",
    "inventory",
)

_SHRINKS = frozenset({"quantization", "cpu-offload-gb", "load-format"})
"""vLLM's flags with which the weights on the GPU are smaller than those on the disk."""


def present(case: Case) -> Iterator[Reason]:
    """As many as the replicas name."""
    if not case.wanted.cuda or case.found.pci is None:
        return
    needed = case.wanted.gpus
    if case.gpus == 0:
        serves = f"its replicas need {needed}" if needed else "its accelerator is cuda"
        yield NO_GPU.reason(
            f"there is no NVIDIA GPU on the PCI bus; {serves}",
            severity="refuse" if needed else "warn",
        )
    elif case.gpus < needed:
        names = ", ".join(model.replica for model in case.wanted.models)
        yield TOO_FEW_GPUS.reason(
            f"has {case.gpus} GPUs, and its replicas ({names}) name GPU {needed - 1}",
            host=case.host,
            there=f"0 to {case.gpus - 1}" if case.gpus > 1 else "0",
        )


def served(case: Case) -> Iterator[Reason]:
    """All of them by the loaded driver."""
    driver = case.found.driver
    if driver is None or not driver.loaded or not driver.gpus or case.found.pci is None:
        return
    seen = {gpu.pci for gpu in driver.gpus}
    bound = [gpu.address for gpu in case.found.pci.gpus if gpu.driver != "vfio-pci"]
    lost = [address for address in bound if address not in seen]
    if lost:
        yield GPU_LOST.reason(
            f"nvidia-smi lists {len(driver.gpus)} of {len(bound)} GPUs; not {', '.join(lost)}"
        )


def not_given_away(case: Case) -> Iterator[Reason]:
    """None of them to virtual machines."""
    gpus = case.found.pci.gpus if case.wanted.cuda and case.found.pci else ()
    given = [gpu.address for gpu in gpus if gpu.driver == "vfio-pci"]
    if given:
        enough = len(gpus) - len(given) >= max(case.wanted.gpus, 1)
        yield GPU_VFIO.reason(
            f"{len(given)} of {len(gpus)} GPUs belong to vfio-pci: {', '.join(given)}",
            severity="warn" if enough else "refuse",
            addresses=" ".join(given),
        )


def weights_fit(case: Case) -> Iterator[Reason]:
    """The weights into the memory of the GPUs that the replica has."""
    seen = case.found.driver.gpus if case.found.driver else ()
    memory = {gpu.index: gpu.memory_mb for gpu in seen}
    for model in case.wanted.models:
        path = model_path(model)
        found = case.basics.models.get(path) if path else None
        sizes = [memory.get(index) for index in model.gpus]
        if found is None or found.weights_mb is None or _SHRINKS & model.args.keys():
            continue
        there = sum(size for size in sizes if size is not None) * model.spans
        if None in sizes or found.weights_mb <= there:
            continue
        yield GPU_MEMORY.reason(
            f"the weights of {model.name} are {found.weights_mb} MiB, and its"
            f" {len(sizes) * model.spans} GPUs have {there} MiB together",
            model=model.name,
            needed=found.weights_mb,
        )


CODES = (NO_GPU, TOO_FEW_GPUS, GPU_LOST, GPU_VFIO, GPU_MEMORY)
RULES = (present, served, not_given_away, weights_fit)
