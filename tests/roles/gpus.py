"""A host that believes in GPUs: a fake NVML, and a tree that stands for what its kernel says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.fakes.nvml import build as fake_nvml

if TYPE_CHECKING:
    from tests.roles.fleet import Fleet

__all__ = ["GPU_STATE", "GPU_TREE", "believes_in_gpus"]

NVML = "/opt/fake-nvml/libnvidia-ml.so.1"
GPU_STATE = "/etc/fake-nvml.state"
"""The state file of the fake NVML on a host that has one."""

GPU_TREE = "/opt/fake-gpu"
"""A stand-in for what the kernel says of H100s whose driver is loaded, on the same host."""
DRIVER_LOADED = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n"
)
FIRST_BUS, BETWEEN = 0x18, 8
"""Where the fake NVML has them (tests/fakes/nvml/devices.c)."""


def believes_in_gpus(fleet: Fleet, host: str, count: int = 1) -> dict[str, Any]:
    """Bring *host* what makes *count* GPUs of it; the data that its inventory needs for that."""
    library = fake_nvml.build(fleet.converge.directory / "nvml").read_bytes()
    fleet.put_bytes(host, NVML, library, mode="755")
    lines = [f"count {count}", *(f"{index}.temperature 41" for index in range(count))]
    fleet.put(host, GPU_STATE, "\n".join([*lines, ""]))
    fleet.put(host, f"{GPU_TREE}/proc/driver/nvidia/version", DRIVER_LOADED)
    fleet.put(host, f"{GPU_TREE}/dev/kmsg", "")
    libraries = f"{GPU_TREE}/usr/lib/x86_64-linux-gnu"
    fleet.put(host, f"{libraries}/libcuda.so.580.95.05", "stand-in\n")
    fleet.root(
        host,
        f"ln -sfn libcuda.so.580.95.05 {libraries}/libcuda.so.1;"
        f" mkdir -p {GPU_TREE}/sys/bus/pci/drivers/nvidia",
    )
    for index in range(count):
        bus = FIRST_BUS + index * BETWEEN
        function = f"{GPU_TREE}/sys/bus/pci/devices/0000:{bus:02x}:00.0"
        for name, value in {"vendor": "0x10de", "device": "0x2330", "class": "0x030200"}.items():
            fleet.put(host, f"{function}/{name}", f"{value}\n")
        fleet.root(host, f"ln -sfn ../../drivers/nvidia {function}/driver")
    return {
        "accelerator": "cuda",
        "agent_nvml_library": NVML,
        # The preflight looks at a tree that stands for a host with GPUs and their driver.
        "nvidia_driver_source": "none",
        "roots": {name: f"{GPU_TREE}/{name}" for name in ("proc", "sys", "usr", "dev")},
    }
