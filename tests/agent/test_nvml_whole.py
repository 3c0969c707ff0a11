"""A whole reading of 1, 8 and 16 busy GPUs on the fake NVML, against what it has to be."""

from __future__ import annotations

import msgspec
import pytest
from farrier_agent.gpus import (
    ClockEvent,
    EccCount,
    Fabric,
    Gpu,
    GpuProcess,
    NvLink,
    RemappedRows,
)

from tests.agent.nvml_reading import Reader

BUSY = """count {count};all.utilization.gpu 61;all.utilization.memory 23;all.clock.sm 1590
all.memory.used 300;all.power.usage 512250;all.power.average 498000;all.temperature 64
all.clocks.reasons 0x44;all.fv.74 1500000000;all.fv.269 2000000000;all.fv.270 250000000
all.fv.197 9000000000;all.fv.198 8000000000;all.fv.138.4294967295 2048;all.fv.139.4294967295 4096
all.fv.162.3 7;all.pcie.generation 4;all.fv.173 5;all.fv.179 1;all.fv.180 2;all.pcie.replays 9
all.ecc.corrected.volatile.dram 11;all.ecc.uncorrected.aggregate.sram 12
all.remapped.corrected 2;all.remapped.uncorrected 1;all.remapped.pending 1;all.recovery 3
all.processes 4711:1000,4712;all.processes.graphics 900:5;all.threshold.0 92;all.threshold.1 89
""".replace("\n", ";")


def busy(index: int) -> Gpu:
    """A GPU in the state of BUSY, in base units."""
    active = {"sw_power_cap", "hw_thermal"}
    seconds = {
        "sw_power_cap": 1.5,
        "sync_boost": 0.0,
        "sw_thermal": 2.0,
        "hw_thermal": 0.25,
        "hw_power_brake": 0.0,
        "low_utilization": 0.0,
        "reliability": 0.0,
    }
    reasons = ["idle", "applications_clocks", "sw_power_cap", "hw_slowdown", "sync_boost"]
    reasons += ["sw_thermal", "hw_thermal", "hw_power_brake", "display"]
    events = [
        ClockEvent(reason=reason, active=reason in active, seconds_total=seconds.get(reason))
        for reason in reasons
    ]
    events += [
        ClockEvent(reason=reason, seconds_total=0.0)
        for reason in ("low_utilization", "reliability")
    ]
    counts = {("corrected", "volatile", "dram"): 11, ("uncorrected", "aggregate", "sram"): 12}
    scopes = [("uncorrected", "volatile"), ("corrected", "volatile"), ("corrected", "aggregate")]
    return Gpu(
        uuid=f"GPU-fa4e0000-0000-4000-8000-{index:012x}",
        index=index,
        up=True,
        name="NVIDIA H200",
        pci_bus_id=f"00000000:{0x18 + 8 * index:02X}:00.0",
        serial="1650000000000",
        vbios_version="96.00.BC.00.01",
        inforom_version="G520.0280.00.05",
        gsp_firmware_version="580.95.05",
        architecture="Hopper",
        compute_capability="9.0",
        minor_number=index,
        memory_total_bytes=150754820096,
        memory_used_bytes=300,
        memory_free_bytes=150754820096 - 673054720 - 300,
        memory_reserved_bytes=673054720,
        utilization_ratio=0.61,
        memory_busy_ratio=0.23,
        encoder_ratio=0.0,
        decoder_ratio=0.0,
        temperature_celsius=64.0,
        memory_temperature_celsius=34.0,
        temperature_margin_celsius=56.0,
        temperature_slowdown_celsius=89.0,
        temperature_shutdown_celsius=92.0,
        power_watts=512.25,
        power_average_watts=498.0,
        power_limit_watts=700.0,
        power_default_limit_watts=700.0,
        power_min_limit_watts=200.0,
        power_max_limit_watts=700.0,
        energy_joules_total=123456.789,
        graphics_clock_hertz=345_000_000,
        sm_clock_hertz=1_590_000_000,
        memory_clock_hertz=3_201_000_000,
        video_clock_hertz=765_000_000,
        graphics_max_clock_hertz=1_980_000_000,
        sm_max_clock_hertz=1_980_000_000,
        memory_max_clock_hertz=3_201_000_000,
        clock_events=tuple(events),
        performance_state=0,
        pcie_generation=4,
        pcie_width=16,
        pcie_max_generation=5,
        pcie_max_width=16,
        pcie_replays_total=9,
        pcie_correctable_errors_total=5,
        pcie_fatal_errors_total=2,
        pcie_non_fatal_errors_total=1,
        pcie_transmit_bytes_total=9_000_000_000,
        pcie_receive_bytes_total=8_000_000_000,
        nvlinks=tuple(
            NvLink(
                link=link,
                up=True,
                replay_errors_total=0,
                recovery_errors_total=7 if link == 3 else 0,
                crc_errors_total=0,
            )
            for link in range(18)
        ),
        nvlink_transmit_bytes_total=2 * 2**20,
        nvlink_receive_bytes_total=4 * 2**20,
        ecc_enabled=True,
        ecc_errors=tuple(
            msgspec.convert(
                {"kind": kind, "scope": scope, "memory": memory}
                | {"count": counts.get((kind, scope, memory), 0)},
                EccCount,
            )
            for kind, scope in [*scopes, ("uncorrected", "aggregate")]
            for memory in ("dram", "sram")
        ),
        sram_threshold_exceeded=False,
        remapped_rows=RemappedRows(corrected=2, uncorrected=1, pending=True, failed=False),
        fabric=Fabric(state="completed", status=0, clique=0),
        recovery_action="drain_p2p",
        persistence_mode=True,
        compute_mode="default",
        mig_enabled=False,
        processes=(
            GpuProcess(pid=900, kind="graphics", memory_bytes=5),
            GpuProcess(pid=4711, memory_bytes=1000),
            GpuProcess(pid=4712),
        ),
        retired_pages=0,
        retired_pages_pending=False,
    )


@pytest.mark.parametrize("count", [1, 8, 16])
def test_everything_of_every_gpu_in_base_units(read_nvml: Reader, count: int) -> None:
    state = BUSY.format(count=count) + "all.retired.pending 0;all.fv.29 0;all.fv.30 0"
    (answer,) = read_nvml(state)
    gpus = answer.all
    assert gpus.problems == ()
    assert gpus.invalid_total == {}
    assert (gpus.count, gpus.driver_version) == (count, "580.95.05")
    assert (gpus.nvml_version, gpus.cuda_version) == ("13.580.95.05", "13.0")
    for index, gpu in enumerate(gpus.devices):
        assert gpu == busy(index)
    assert len(gpus.devices) == count
