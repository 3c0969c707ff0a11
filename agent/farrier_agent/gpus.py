"""What is known of GPUs: part of the schema of ``/status``, and what the NVML worker reports.

Base units: bytes, watts, joules, hertz, celsius, seconds, ratios from 0 to 1. ``None``, an empty
tuple or a missing key mean *could not be read* or *this GPU has no such thing*; a value is never
guessed. What ends in ``_total`` only grows while the driver stays loaded.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = [
    "ClockEvent",
    "EccCount",
    "Fabric",
    "Gpu",
    "GpuProcess",
    "Gpus",
    "MigDevice",
    "NvLink",
    "Nvml",
    "RemappedRows",
    "UnitOnGpu",
    "Xid",
    "XidEvent",
]


class GpuProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process that holds the GPU. ``unit`` is its systemd unit, None where it could not be read.

    ``managed``: that unit is a replica's whose engine was given this GPU.
    """

    pid: int
    kind: Literal["compute", "graphics", "mps"] = "compute"
    memory_bytes: int | None = None
    unit: str | None = None
    managed: bool | None = None
    command: str | None = None


class NvLink(msgspec.Struct, frozen=True, kw_only=True):
    """One NVLink of a GPU. ``up`` is its state; errors are counters since the driver was loaded.

    Replays and CRC errors are counted up to Hopper, effective errors (those that were not corrected
    on the way) and symbol errors (those that mostly were) from Blackwell on.
    """

    link: int
    up: bool | None = None
    replay_errors_total: int | None = None
    recovery_errors_total: int | None = None
    crc_errors_total: int | None = None
    effective_errors_total: int | None = None
    symbol_errors_total: int | None = None


class ClockEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Why clocks are below what was asked for: ``active`` at the moment, and for how long so far.

    ``reason`` is one of ``idle``, ``applications_clocks``, ``sw_power_cap``, ``hw_slowdown``,
    ``sync_boost``, ``sw_thermal``, ``hw_thermal``, ``hw_power_brake``, ``display``; of
    ``low_utilization`` and ``reliability`` only the time is known.
    """

    reason: str
    active: bool | None = None
    seconds_total: float | None = None


class EccCount(msgspec.Struct, frozen=True, kw_only=True):
    """ECC errors; ``volatile`` ones since the driver was loaded, ``aggregate`` ones ever."""

    kind: Literal["corrected", "uncorrected"]
    scope: Literal["volatile", "aggregate"]
    memory: Literal["dram", "sram", "all"]
    count: int


class RemappedRows(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of memory that were exchanged for spare ones (Ampere and later)."""

    corrected: int
    uncorrected: int
    pending: bool
    failed: bool


class Fabric(msgspec.Struct, frozen=True, kw_only=True):
    """How the GPU stands with the NVSwitch fabric.

    ``state``: ``not_started``, ``in_progress``, ``completed``; ``status`` is NVML's code of the
    registration, 0 for success; ``problems`` are the faults in its health mask, in words
    (``degraded_bandwidth``, ``route_recovery``, ``route_unhealthy``, ``access_timeout``, … : all
    stand in :mod:`farrier_agent.nvml.readings.fabric`).
    """

    state: str
    status: int
    clique: int | None = None
    problems: tuple[str, ...] = ()


class MigDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One MIG device of a GPU."""

    uuid: str
    gpu_instance: int
    compute_instance: int
    profile: str | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU. ``up`` is false when it does not answer, for the reason in ``problem``.

    ``problem``: ``lost`` (NVML says so), ``hangs`` (an NVML call on it did not return), ``gone``
    (it was here, and neither NVML nor the PCI bus has it any more), ``unseen`` (on the PCI bus, but
    not in NVML). ``problem_detail`` is for a person. ``index`` is the one of the last enumeration
    that was complete: the replicas' ``gpus`` mean it.

    Utilisation is NVML's: the share of the last sample period (1/6 s to 1 s, by product) in which
    a kernel was running (``utilization_ratio``) or memory was read or written
    (``memory_busy_ratio``). ``memory_used_bytes`` is without what the driver reserves
    (nvmlMemory_v2_t). Up to a minute old are video engines and their clock, the mean power of a
    second, fans, replays of NVLinks, ECC errors but for the volatile uncorrected ones, retired
    pages, modes, MIG devices, and processes of graphics and MPS. ``pcie_*_bytes_total`` are absent
    where the driver counts in 32 bits, which wrap within a tick.

    ``recovery_action`` is what the driver wants done: ``none``, ``gpu_reset``,
    ``node_reboot``, ``drain_p2p``, ``drain_and_reset``, ``imex_domain``, ``bus_reset``,
    ``system_reboot``, or ``unknown`` for one that this agent does not know.
    """

    uuid: str
    index: int
    up: bool
    problem: Literal["lost", "hangs", "gone", "unseen"] | None = None
    problem_detail: str | None = None

    name: str | None = None
    pci_bus_id: str | None = None
    serial: str | None = None
    vbios_version: str | None = None
    inforom_version: str | None = None
    gsp_firmware_version: str | None = None
    architecture: str | None = None
    compute_capability: str | None = None
    minor_number: int | None = None

    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_free_bytes: int | None = None
    memory_reserved_bytes: int | None = None
    utilization_ratio: float | None = None
    memory_busy_ratio: float | None = None
    encoder_ratio: float | None = None
    decoder_ratio: float | None = None

    temperature_celsius: float | None = None
    memory_temperature_celsius: float | None = None
    temperature_margin_celsius: float | None = None
    temperature_slowdown_celsius: float | None = None
    temperature_shutdown_celsius: float | None = None
    fan_speed_ratios: tuple[float, ...] = ()

    power_watts: float | None = None
    power_average_watts: float | None = None
    power_limit_watts: float | None = None
    power_default_limit_watts: float | None = None
    power_min_limit_watts: float | None = None
    power_max_limit_watts: float | None = None
    energy_joules_total: float | None = None

    graphics_clock_hertz: int | None = None
    sm_clock_hertz: int | None = None
    memory_clock_hertz: int | None = None
    video_clock_hertz: int | None = None
    graphics_max_clock_hertz: int | None = None
    sm_max_clock_hertz: int | None = None
    memory_max_clock_hertz: int | None = None
    clock_events: tuple[ClockEvent, ...] = ()
    performance_state: int | None = None

    pcie_generation: int | None = None
    pcie_width: int | None = None
    pcie_max_generation: int | None = None
    pcie_max_width: int | None = None
    pcie_replays_total: int | None = None
    pcie_correctable_errors_total: int | None = None
    pcie_fatal_errors_total: int | None = None
    pcie_non_fatal_errors_total: int | None = None
    pcie_transmit_bytes_total: int | None = None
    pcie_receive_bytes_total: int | None = None

    nvlinks: tuple[NvLink, ...] = ()
    nvlink_transmit_bytes_total: int | None = None
    nvlink_receive_bytes_total: int | None = None

    ecc_enabled: bool | None = None
    ecc_errors: tuple[EccCount, ...] = ()
    sram_threshold_exceeded: bool | None = None
    remapped_rows: RemappedRows | None = None
    retired_pages: int | None = None
    retired_pages_pending: bool | None = None

    fabric: Fabric | None = None
    recovery_action: str | None = None
    persistence_mode: bool | None = None
    compute_mode: str | None = None
    mig_enabled: bool | None = None
    mig_devices: tuple[MigDevice, ...] = ()
    processes: tuple[GpuProcess, ...] | None = None


class XidEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One XID, from NVML's events or from the kernel log.

    ``at`` is seconds since the epoch; ``pci_bus_id`` as in :class:`Gpu`. ``xid`` 79 stands also for
    lines that say that a GPU fell off the bus without a number. Numbers from 10000 on are SXids:
    errors of the NVSwitch at ``pci_bus_id``, which belong to no GPU. ``text`` is the line, bounded
    and printable; ``recovery_action`` what an XID 154 announces, in the words of :class:`Gpu`.
    """

    at: float
    xid: int
    pci_bus_id: str | None = None
    uuid: str | None = None
    source: Literal["kmsg", "nvml"]
    text: str = ""
    recovery_action: str | None = None


class Gpus(msgspec.Struct, frozen=True, kw_only=True):
    """All GPUs of the host. NVML enumerates ``count`` of them; ``devices`` are those it can name.

    ``count`` is None where NVML cannot be read and ``devices`` has only those that are gone.

    ``devices`` also has those that are no longer enumerated (``up`` is false). ``invalid_total``
    counts readings that were dropped because they were out of range, by field. ``events`` are
    XIDs that NVML told since the last reading.
    """

    count: int | None
    driver_version: str | None = None
    nvml_version: str | None = None
    cuda_version: str | None = None
    devices: tuple[Gpu, ...] = ()
    problems: tuple[str, ...] = ()
    invalid_total: dict[str, int] = {}
    events: tuple[XidEvent, ...] = ()


class Xid(msgspec.Struct, frozen=True, kw_only=True):
    """How often a GPU told an XID since the agent first saw it, across restarts of the agent.

    ``uuid`` is empty where no GPU is known at the PCI address that the kernel told; then
    ``pci_bus_id`` is the last such address, and ``xid`` may be an SXid as in :class:`XidEvent`.
    """

    uuid: str
    xid: int
    count: int
    last_at: float
    pci_bus_id: str | None = None
    text: str = ""


class Nvml(msgspec.Struct, frozen=True, kw_only=True):
    """How the NVML worker fares.

    ``kind`` says why it does not read: ``hangs``, ``mismatch`` (driver and library differ),
    ``not_loaded`` (no driver), ``no_library``, ``no_permission``, ``released`` (let go of on
    demand, until ``released_until_at``), ``failed``; None when it reads. ``call`` is the one that
    hangs, ``stuck`` a worker that even SIGKILL does not end. ``workers`` were started so far.
    """

    kind: str | None = None
    detail: str | None = None
    call: str | None = None
    stuck: bool = False
    workers: int = 0
    pid: int | None = None
    released_until_at: float | None = None


class UnitOnGpu(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of GPU ``uuid`` that the processes of systemd unit ``unit`` hold."""

    uuid: str
    unit: str
    processes: int
    memory_bytes: int | None = None
    managed: bool = False
