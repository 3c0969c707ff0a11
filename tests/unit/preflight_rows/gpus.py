"""GPUs and their generations."""

from __future__ import annotations

from dataclasses import replace

from farrier.preflight.basics import ModelFound
from tests.unit.preflight_hosts import (
    B200,
    GRACE,
    GTX1080,
    ROLE,
    SPEC,
    V100,
    bus,
    case,
    gpu,
    seen,
)
from tests.unit.preflight_rows.parts import (
    CUSTOM,
    DRIVER_DEPLOY,
    Row,
)

ROWS = {
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
}
