"""GPUs with every reading, and the names that full statuses have in common.

Not measurements: the numbers are chosen, plausible for eight H200 on one board.
"""

from __future__ import annotations

from typing import Literal

from farrier_agent.gpus import (
    ClockEvent,
    EccCount,
    Fabric,
    Gpu,
    GpuProcess,
    Gpus,
    MigDevice,
    NvLink,
    RemappedRows,
    XidEvent,
)

__all__ = ["AT", "GIB", "MODEL", "bus", "gpu", "gpus_of", "replica_name", "unit_name", "uuid"]

AT = 1_790_000_000.0
"""The moment that they are of, in seconds since the epoch."""

GIB = 2**30
CLOCK_REASONS = (
    "idle",
    "applications_clocks",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal",
    "hw_thermal",
    "hw_power_brake",
    "display",
)
TIMED_REASONS = ("low_utilization", "reliability")
"""Of these only the time is known."""
LINKS = 18
MODEL = "qwen3-32b"
MEMORIES: tuple[Literal["dram", "sram"], ...] = ("dram", "sram")
_KINDS: tuple[Literal["corrected", "uncorrected"], ...] = ("corrected", "uncorrected")
_SCOPES: tuple[Literal["volatile", "aggregate"], ...] = ("volatile", "aggregate")


def uuid(index: int) -> str:
    """The uuid of GPU *index*."""
    return f"GPU-fa4e0000-0000-4000-8000-{index:012x}"


def replica_name(index: int) -> str:
    return f"chat-{index}"


def unit_name(index: int) -> str:
    return f"engine-{replica_name(index)}.service"


def gpu(index: int, owner: int | None = 0, at: float = AT) -> Gpu:
    """GPU *index*, which replica number *owner* holds, with every reading."""
    return Gpu(
        uuid=uuid(index),
        index=index,
        up=True,
        name="NVIDIA H200",
        pci_bus_id=bus(index),
        serial=f"16504240{index:04d}",
        vbios_version="96.00.A5.00.02",
        inforom_version="G520.0280.00.05",
        gsp_firmware_version="580.95.05",
        architecture="hopper",
        compute_capability="9.0",
        minor_number=index,
        memory_total_bytes=141 * GIB,
        memory_used_bytes=(120 + index) * GIB,
        memory_free_bytes=(20 - index) * GIB,
        memory_reserved_bytes=GIB,
        utilization_ratio=0.91 - index / 100,
        memory_busy_ratio=0.42 + index / 100,
        encoder_ratio=0.01,
        decoder_ratio=0.02,
        temperature_celsius=55.0 + index,
        memory_temperature_celsius=61.0 + index,
        temperature_margin_celsius=32.0 - index,
        temperature_slowdown_celsius=87.0,
        temperature_shutdown_celsius=92.0,
        fan_speed_ratios=(0.31, 0.32),
        power_watts=512.345 + index,
        power_average_watts=498.5 + index,
        power_limit_watts=700.0,
        power_default_limit_watts=700.0,
        power_min_limit_watts=200.0,
        power_max_limit_watts=700.0,
        energy_joules_total=987654321.125 + index,
        graphics_clock_hertz=1_785_000_000,
        sm_clock_hertz=1_785_000_000,
        memory_clock_hertz=3_201_000_000,
        video_clock_hertz=1_500_000_000,
        graphics_max_clock_hertz=1_980_000_000,
        sm_max_clock_hertz=1_980_000_000,
        memory_max_clock_hertz=3_201_000_000,
        clock_events=tuple(
            ClockEvent(reason=reason, active=reason == "sw_power_cap", seconds_total=1.5 * number)
            for number, reason in enumerate(CLOCK_REASONS)
        )
        + tuple(ClockEvent(reason=reason, seconds_total=0.25) for reason in TIMED_REASONS),
        performance_state=0,
        pcie_generation=5,
        pcie_width=16,
        pcie_max_generation=5,
        pcie_max_width=16,
        pcie_replays_total=index,
        pcie_correctable_errors_total=2 * index,
        pcie_fatal_errors_total=0,
        pcie_non_fatal_errors_total=1,
        pcie_transmit_bytes_total=123_456_789_000 + index,
        pcie_receive_bytes_total=987_654_321_000 + index,
        nvlinks=tuple(
            NvLink(
                link=link,
                up=True,
                replay_errors_total=link,
                recovery_errors_total=0,
                crc_errors_total=link + 1,
                effective_errors_total=0,
                symbol_errors_total=2 * link,
            )
            for link in range(LINKS)
        ),
        nvlink_transmit_bytes_total=555_000_000_000 + index,
        nvlink_receive_bytes_total=444_000_000_000 + index,
        ecc_enabled=True,
        ecc_errors=tuple(
            EccCount(kind=kind, scope=scope, memory=memory, count=index + len(memory))
            for kind in _KINDS
            for scope in _SCOPES
            for memory in MEMORIES
        ),
        sram_threshold_exceeded=False,
        remapped_rows=RemappedRows(corrected=2, uncorrected=1, pending=True, failed=False),
        retired_pages=0,
        retired_pages_pending=False,
        fabric=Fabric(state="completed", status=0, clique=32766, problems=("degraded_bandwidth",)),
        recovery_action="none",
        persistence_mode=True,
        compute_mode="default",
        mig_enabled=True,
        mig_devices=tuple(
            MigDevice(
                uuid=f"MIG-fa4e0000-0000-4000-{index:04x}-{instance:012x}",
                gpu_instance=instance,
                compute_instance=0,
                profile="1g.18gb",
                memory_total_bytes=18 * GIB,
                memory_used_bytes=instance * GIB,
            )
            for instance in (1, 2)
        ),
        processes=(
            GpuProcess(
                pid=5000 + index,
                memory_bytes=(100 + index) * GIB,
                unit=None if owner is None else unit_name(owner),
                managed=owner is not None,
                command="python3",
            ),
            GpuProcess(
                pid=6000 + index,
                memory_bytes=GIB,
                unit="user@1000",
                managed=False,
                command="jupyter-lab",
            ),
        ),
    )


def gpus_of(count: int, owners: dict[int, int], at: float) -> Gpus:
    """The GPUs of a host; *owners* are the numbers of the replicas that hold them."""
    return Gpus(
        count=count,
        driver_version="580.95.05",
        nvml_version="13.580.95.05",
        cuda_version="13.0",
        devices=tuple(gpu(index, owners.get(index), at) for index in range(count)),
        problems=("GPU 1: nvmlDeviceGetFanSpeed_v2: not supported",),
        invalid_total={"temperature_celsius": 3, "utilization_ratio": 1},
        events=(
            XidEvent(
                at=at - 3600.0,
                xid=13,
                pci_bus_id=bus(0),
                uuid=uuid(0),
                source="nvml",
                text="Xid 13",
                recovery_action="gpu_reset",
            ),
        ),
    )


def bus(index: int) -> str:
    return f"00000000:{0x18 + 0x10 * index:02X}:00.0"
