"""A Status of a host that is up, with every reading: what there can be on a page is on its page.

Not a measurement: the numbers are chosen, plausible for eight H200 on one board, and each differs
from the next. Tests of pages, rules and dashboards, and the benches, start from here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from farrier_agent.collectors.requests import Histogram, ReplicaRequests, RequestCounts
from farrier_agent.engines.passthrough import Family
from farrier_agent.gpus import (
    ClockEvent,
    EccCount,
    Fabric,
    Gpu,
    GpuProcess,
    Gpus,
    MigDevice,
    NvLink,
    Nvml,
    RemappedRows,
    UnitOnGpu,
    Xid,
    XidEvent,
)
from farrier_agent.metrics.page import Extra
from farrier_agent.status import (
    Agent,
    AgentCheck,
    Collector,
    Drain,
    Health,
    Notice,
    Reason,
    Replica,
    Requests,
    Status,
    Unit,
    Verdict,
)

__all__ = [
    "AT",
    "COLLECTORS",
    "engine_families",
    "full_extra",
    "full_status",
    "gpu",
    "proc_tree",
    "replica",
    "requests",
    "uuid",
]

AT = 1_790_000_000.0
"""The moment that the status is of, in seconds since the epoch."""

COLLECTORS = (
    "gpu", "xid", "pci", "process", "engine", "requests", "units", "replicas", "notices",
)  # fmt: skip

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


def uuid(index: int) -> str:
    """The uuid of GPU *index*."""
    return f"GPU-fa4e0000-0000-4000-8000-{index:012x}"


def replica_name(index: int) -> str:
    return f"chat-{index}"


def unit_name(index: int) -> str:
    return f"engine-{replica_name(index)}.service"


def full_status(gpus: int = 8, replicas: int = 4, at: float = AT) -> Status:
    """A host with *gpus* GPUs that *replicas* replicas share evenly, with every reading."""
    shares = _shares(gpus, replicas)
    owners = {index: number for number, share in enumerate(shares) for index in share}
    return Status(
        host="gpu01",
        at=at,
        accelerator="cuda",
        agent=Agent(version="0.1.0", python="3.11.2", pid=700, started_at=at - 86400.5),
        ready=True,
        reasons=("replica chat-0: draining: kernel",),
        collectors=tuple(
            Collector(
                name=name,
                success=name != "notices",
                fresh=True,
                duration_seconds=0.0125 * (number + 1),
                last_success_at=at - 1.5 - number,
                error="no answer within 2 s" if name == "notices" else None,
            )
            for number, name in enumerate(COLLECTORS)
        ),
        gpus=_gpus(gpus, owners, at),
        replicas=tuple(replica(number, shares[number], at) for number in range(replicas)),
        units=(
            Unit(
                name="nginx.service",
                load_state="loaded",
                active_state="active",
                sub_state="running",
                invocation_id="a" * 32,
                main_pid=801,
            ),
            Unit(
                name="nvidia-fabricmanager.service",
                load_state="loaded",
                active_state="failed",
                sub_state="failed",
                invocation_id="b" * 32,
            ),
        ),
        notices=(Notice(cloud="aws", kind="preempt", id="n-1", at=at + 110.0, drains=True),),
        agent_check=AgentCheck(answered=1200, refused=3),
        health=_health(gpus, replicas, owners, at),
        xids=tuple(
            Xid(
                uuid=uuid(index),
                xid=xid,
                count=index + 1,
                last_at=at - 3600.0 - index,
                pci_bus_id=_bus(index),
                text=f"NVRM: Xid (PCI:{_bus(index)}): {xid}, pid=4242, name=python3",
            )
            for index in range(gpus)
            for xid in (13, 94)
        ),
        nvml=Nvml(
            workers=2,
            pid=701,
        ),
        gpu_units=tuple(
            UnitOnGpu(
                uuid=uuid(index),
                unit=unit_name(owner),
                processes=2,
                memory_bytes=(100 + index) * GIB,
                managed=True,
            )
            for index, owner in owners.items()
        ),
        requests=Requests(lines=123456, refused=7, last_at=at - 0.25),
        web_problem="/etc/farrier/web.yml: unknown key tls_server_config.cert_fil",
    )


def full_extra(proc: Path, replicas: int = 4) -> Extra:
    """What else is on a page, with *proc* as :func:`proc_tree` makes it."""
    return Extra(engine_families(replicas), requests(replicas), proc)


def requests(replicas: int = 4) -> RequestCounts:
    """What nginx told of *replicas*."""
    return RequestCounts(
        replicas=tuple(
            ReplicaRequests(
                replica=replica_name(number),
                model=MODEL,
                codes={"200": 1000 + number, "429": 3, "502": 1},
                incomplete=2,
                seconds=Histogram((0.1, 1.0, 10.0, 60.0), (0, 200, 900, 1000, 1001), 4321.5),
                first_byte=Histogram((0.01, 0.1, 1.0), (0, 700, 1000, 1001), 98.75),
            )
            for number in range(replicas)
        ),
        lines={"counted": 4016, "other": 5, "refused": 1, "garbled": 2},
        full=1,
        last_at=AT - 0.25,
    )


def engine_families(replicas: int = 4) -> tuple[Family, ...]:
    """A few of vLLM's families, one of each kind, of *replicas*."""
    labels = [
        f'replica="{replica_name(number)}",model="{MODEL}",engine="0"' for number in range(replicas)
    ]
    seconds = "vllm:e2e_request_latency_seconds"
    return (
        Family(
            "vllm:num_requests_running",
            "gauge",
            "Number of requests in model execution batches.",
            tuple(f"vllm:num_requests_running{{{one}}} 3.0" for one in labels),
        ),
        Family(
            "vllm:prompt_tokens_total",
            "counter",
            "Number of prefill tokens processed.",
            tuple(f"vllm:prompt_tokens_total{{{one}}} 1.5e+06" for one in labels),
        ),
        Family(
            seconds,
            "histogram",
            "Histogram of e2e request latency in seconds.",
            tuple(
                line
                for one in labels
                for line in (
                    f'{seconds}_bucket{{{one},le="0.3"}} 1.0',
                    f'{seconds}_bucket{{{one},le="+Inf"}} 4.0',
                    f"{seconds}_count{{{one}}} 4.0",
                    f"{seconds}_sum{{{one}}} 12.5",
                )
            ),
        ),
    )


def proc_tree(root: Path, worker: int = 701) -> Path:
    """A /proc with the agent itself and the NVML worker, in *root*."""
    root.mkdir()
    (root / "stat").write_text("cpu  1 2 3 4\nbtime 1789900000\nprocesses 5000\n")
    for number, pid in enumerate(("self", str(worker))):
        one = root / pid
        (one / "fd").mkdir(parents=True)
        for descriptor in range(5):
            (one / "fd" / str(descriptor)).touch()
        (one / "limits").write_text("Max open files            1024    524288    files\n")
        fields = ["0"] * 50
        fields[11:13] = ["250", "150"]  # user and system time
        fields[19:22] = ["1000", str(300 * 2**20), str(7000 + number)]  # start, memory
        (one / "stat").write_text(f"{worker} (python3) " + " ".join(fields))
    return root


def gpu(index: int, owner: int | None = 0, at: float = AT) -> Gpu:
    """GPU *index*, which replica number *owner* holds, with every reading."""
    return Gpu(
        uuid=uuid(index),
        index=index,
        up=True,
        name="NVIDIA H200",
        pci_bus_id=_bus(index),
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


def replica(number: int, gpus: tuple[int, ...] = (), at: float = AT) -> Replica:
    """Replica *number* with a value in every field: it is being drained, and once was before."""
    drain = Drain(
        asked_by=("uid 0",),
        reasons=("kernel",),
        policy="extend",
        begun_at=at - 12.5,
        deadline_at=at + 887.5,
        seconds=12.5,
        in_flight_at_close=9,
    )
    return Replica(
        name=replica_name(number),
        model=MODEL,
        engine="vllm",
        unit=unit_name(number),
        port=8100 + number,
        gpus=gpus,
        unit_state=Unit(
            name=unit_name(number),
            load_state="loaded",
            active_state="active",
            sub_state="running",
            invocation_id=f"{number:032x}",
            main_pid=5000 + number,
        ),
        up=True,
        gate="closed",
        restart_pending=True,
        detail="gate closed: draining: kernel",
        phase="draining",
        reason="kernel",
        asked_by="uid 0",
        since_at=at - 12.5,
        in_flight=7 + number,
        strangers=1,
        drain=drain,
        last_drain=Drain(
            asked_by=("uid 0",),
            reasons=("driver",),
            policy="force",
            begun_at=at - 90000.0,
            deadline_at=at - 89100.0,
            seconds=900.0,
            over=True,
            in_flight_at_close=12,
            forced=True,
            cut=2,
        ),
        restarts=1,
        health="busy",
        health_restarts=1,
    )


_KINDS: tuple[Literal["corrected", "uncorrected"], ...] = ("corrected", "uncorrected")
_SCOPES: tuple[Literal["volatile", "aggregate"], ...] = ("volatile", "aggregate")


def _bus(index: int) -> str:
    return f"00000000:{0x18 + 0x10 * index:02X}:00.0"


def _shares(gpus: int, replicas: int) -> list[tuple[int, ...]]:
    each = gpus // replicas if replicas else 0
    return [tuple(range(number * each, (number + 1) * each)) for number in range(replicas)]


def _gpus(count: int, owners: dict[int, int], at: float) -> Gpus:
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
                pci_bus_id=_bus(0),
                uuid=uuid(0),
                source="nvml",
                text="Xid 13",
                recovery_action="gpu_reset",
            ),
        ),
    )


def _health(gpus: int, replicas: int, owners: dict[int, int], at: float) -> Health:
    """GPU 0 is unhealthy, and with it replica 0 and the host; one reason of each kind."""
    remap = Reason(
        rule="row-remap-failed",
        state="unhealthy",
        text="GPU 0: a row of memory could not be exchanged",
        next="return the board",
        command="farrier-agent drain chat-0",
        since_at=at - 60.0,
        gpu=uuid(0),
        latched=True,
        clears="a reset of the GPU, or farrier-agent ack row-remap-failed",
        acts=True,
        held_back="no other host of qwen3-32b is ready",
    )
    xid = Reason(
        rule="xid-app-repeated",
        state="degraded",
        text="replica chat-0: XID 13 four times within an hour",
        next="restart the replica",
        since_at=at - 30.0,
        gpu=uuid(0),
        replica=replica_name(0),
    )
    kernel = Reason(
        rule="kernel-log-unreadable",
        state="unknown",
        text="/dev/kmsg: permission denied",
        next="give the agent CAP_SYSLOG",
        since_at=at - 900.0,
    )
    good = Verdict(state="healthy")
    ill = Verdict(state="unhealthy", reasons=(remap, xid))
    return Health(
        host=Verdict(state="unhealthy", reasons=(remap, xid, kernel)),
        gpus={uuid(index): ill if index == 0 else good for index in range(gpus)},
        replicas={
            replica_name(number): ill if owners.get(0) == number else good
            for number in range(replicas)
        },
    )
