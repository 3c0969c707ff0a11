"""The families about GPUs: which there are, and their values. A host without one has none."""

from __future__ import annotations

from collections.abc import Iterator

from farrier_agent.gpus import Gpu, Gpus
from farrier_agent.metrics.family import Family, Sample, family, one_hot

__all__ = ["FAMILIES", "PROBLEMS", "VALUES", "samples"]

PROBLEMS = ("lost", "hangs", "gone", "unseen")
"""Why a GPU is not up; ``farrier_gpu_problem`` is one-hot over them."""

# field of Gpu, help; the metric is farrier_gpu_<field>
_VALUES = (
    ("memory_total_bytes", "Memory of the GPU, in bytes."),
    ("memory_used_bytes", "Memory in use, in bytes, without what the driver reserves."),
    ("memory_free_bytes", "Memory that can still be allocated, in bytes."),
    ("memory_reserved_bytes", "Memory that the driver reserves for itself, in bytes."),
    (
        "utilization_ratio",
        "Share (0 to 1) of NVML's last sample period in which a kernel was running.",
    ),
    (
        "memory_busy_ratio",
        "Share (0 to 1) of NVML's last sample period in which memory was read or written.",
    ),
    ("encoder_ratio", "Share (0 to 1) of time in which the video encoder was busy."),
    ("decoder_ratio", "Share (0 to 1) of time in which the video decoder was busy."),
    ("temperature_celsius", "Temperature of the GPU's die, in degrees Celsius."),
    ("memory_temperature_celsius", "Temperature of the GPU's memory, in degrees Celsius."),
    (
        "temperature_margin_celsius",
        "Degrees Celsius until the temperature at which the GPU slows down.",
    ),
    (
        "temperature_slowdown_celsius",
        "Temperature at which the GPU slows its clocks down, in degrees Celsius.",
    ),
    (
        "temperature_shutdown_celsius",
        "Temperature at which the GPU shuts itself down, in degrees Celsius.",
    ),
    ("power_watts", "Power drawn by the board at the moment, in watts."),
    ("power_average_watts", "Power drawn by the board, averaged by the driver, in watts."),
    ("power_limit_watts", "Power limit in force, in watts."),
    ("power_default_limit_watts", "Power limit after the driver was loaded, in watts."),
    ("power_min_limit_watts", "Lowest power limit that can be set, in watts."),
    ("power_max_limit_watts", "Highest power limit that can be set, in watts."),
    ("energy_joules_total", "Energy used since the driver was loaded, in joules."),
    ("graphics_clock_hertz", "Present clock of the graphics domain, in hertz."),
    ("sm_clock_hertz", "Present clock of the streaming multiprocessors, in hertz."),
    ("memory_clock_hertz", "Present clock of the memory, in hertz."),
    ("video_clock_hertz", "Present clock of the video engines, in hertz."),
    ("graphics_max_clock_hertz", "Highest clock of the graphics domain, in hertz."),
    ("sm_max_clock_hertz", "Highest clock of the streaming multiprocessors, in hertz."),
    ("memory_max_clock_hertz", "Highest clock of the memory, in hertz."),
    ("performance_state", "Performance state: 0 (P0) is the fastest, 15 (P15) the slowest."),
    ("pcie_generation", "Generation of the PCIe link at the moment; an idle GPU lowers it."),
    ("pcie_width", "Lanes of the PCIe link at the moment."),
    ("pcie_max_generation", "Highest generation of the PCIe link of this GPU in this slot."),
    ("pcie_max_width", "Most lanes of the PCIe link of this GPU in this slot."),
    ("pcie_replays_total", "Packets that had to be sent again over PCIe."),
    ("pcie_correctable_errors_total", "Correctable errors of the PCIe link (AER)."),
    ("pcie_fatal_errors_total", "Fatal errors of the PCIe link (AER)."),
    ("pcie_non_fatal_errors_total", "Errors of the PCIe link that are not fatal (AER)."),
    ("pcie_transmit_bytes_total", "Bytes sent by the GPU over PCIe."),
    ("pcie_receive_bytes_total", "Bytes received by the GPU over PCIe."),
    ("nvlink_transmit_bytes_total", "Bytes of data sent by the GPU over all its NVLinks."),
    ("nvlink_receive_bytes_total", "Bytes of data received by the GPU over all its NVLinks."),
    ("ecc_enabled", "Whether ECC is on (1) or off (0)."),
    (
        "sram_threshold_exceeded",
        "Whether (1) errors of the SRAM passed the threshold at which the board goes back.",
    ),
    ("retired_pages", "Pages of memory taken out of use (before Ampere)."),
    (
        "retired_pages_pending",
        "Whether (1) a page of memory is taken out of use at the next reboot (before Ampere).",
    ),
    ("persistence_mode", "Whether (1) the driver stays loaded when nobody uses the GPU."),
    ("mig_enabled", "Whether (1) the GPU is divided into MIG devices."),
)

VALUES = {field: family(f"farrier_gpu_{field}", "uuid", text, "gpu") for field, text in _VALUES}
"""The family of each field of :class:`Gpu` that is one number or yes and no."""

# not farrier_gpu_count: promtool reserves the suffix for histograms and summaries
COUNT = family("farrier_gpus", "", "GPUs that NVML sees on the host.", "gpu")
UP = family(
    "farrier_gpu_up",
    "uuid",
    "Whether the GPU answers (1); one that was here and is lost has 0.",
    "gpu pci",
)
PROBLEM = family(
    "farrier_gpu_problem",
    "uuid problem",
    "Why the GPU is not up: 1 for what it is. lost: NVML says so, hangs: a call of NVML on it does "
    "not return, gone: not on the PCI bus any more, unseen: on the bus, but not in NVML.",
    "gpu pci",
)
INFO = family(
    "farrier_gpu_info",
    "uuid index name pci_bus_id serial vbios inforom gsp_firmware architecture compute_capability",
    "Which GPU a uuid is; always 1. Its index can change at a reboot.",
    "gpu pci",
)
DRIVER = family(
    "farrier_gpu_driver_info",
    "driver nvml cuda",
    "Versions of the GPU driver, of NVML and of the CUDA that the driver can run; always 1.",
    "gpu",
)
FAN = family("farrier_gpu_fan_speed_ratio", "uuid fan", "Speed of a fan, 1 is its highest.", "gpu")
INVALID = family(
    "farrier_gpu_invalid_samples_total",
    "field",
    "Readings that were dropped because they were out of range, by field.",
    "gpu",
)

FAMILIES: tuple[Family, ...] = (
    COUNT,
    DRIVER,
    UP,
    PROBLEM,
    INFO,
    *VALUES.values(),
    FAN,
    INVALID,
)


def samples(gpus: Gpus) -> Iterator[tuple[Family, list[Sample]]]:
    """What there is of *gpus*, by family."""
    devices = gpus.devices
    yield COUNT, [((), gpus.count)]
    versions = (gpus.driver_version, gpus.nvml_version, gpus.cuda_version)
    yield DRIVER, [(tuple(one or "" for one in versions), 1)] if any(versions) else []
    yield UP, [((gpu.uuid,), gpu.up) for gpu in devices]
    yield (
        PROBLEM,
        [sample for gpu in devices for sample in one_hot((gpu.uuid,), PROBLEMS, gpu.problem or "")],
    )
    yield INFO, [(_identity(gpu), 1) for gpu in devices]
    keys = [(gpu, (gpu.uuid,)) for gpu in devices]
    for field, one in VALUES.items():
        yield one, [(key, getattr(gpu, field)) for gpu, key in keys]
    yield (
        FAN,
        [
            ((gpu.uuid, str(fan)), ratio)
            for gpu in devices
            for fan, ratio in enumerate(gpu.fan_speed_ratios)
        ],
    )
    yield INVALID, [((field,), count) for field, count in gpus.invalid_total.items()]


def _identity(gpu: Gpu) -> tuple[str, ...]:
    return (
        gpu.uuid,
        str(gpu.index),
        gpu.name or "",
        gpu.pci_bus_id or "",
        gpu.serial or "",
        gpu.vbios_version or "",
        gpu.inforom_version or "",
        gpu.gsp_firmware_version or "",
        gpu.architecture or "",
        gpu.compute_capability or "",
    )
