"""A host of eight GPUs that is well, things that break it, and a clock that ticks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from farrier_agent.gpus import (
    ClockEvent,
    EccCount,
    Fabric,
    Gpu,
    GpuProcess,
    Gpus,
    NvLink,
    Nvml,
    RemappedRows,
    XidEvent,
)
from farrier_agent.health.acknowledging import Acknowledged, acknowledge
from farrier_agent.health.judging import judge
from farrier_agent.health.memory import Memory
from farrier_agent.health.observed import FABRIC_MANAGER, PERSISTENCED, Observed
from farrier_agent.status import Health, Reason, Replica, Unit
from farrier_agent.units.state import UnitState

AT = 1_800_000_000.0
TICK = 5.0
BOOT = "boot-1"
BY = "farrier-agent (GPU health)"

replaced = msgspec.structs.replace
Change = Callable[[Observed], Observed]


def uuid(index: int) -> str:
    return f"GPU-{index:08d}-aaaa-bbbb-cccc-dddddddddddd"


def place(index: int) -> str:
    return f"0000:{index + 16:02x}:00.0"


def gpu(index: int, **fields: Any) -> Gpu:
    """A GPU of an HGX board, at work, with everything that rules look at."""
    well: dict[str, Any] = {
        "name": "NVIDIA H200",
        "pci_bus_id": place(index),
        "utilization_ratio": 0.7,
        "performance_state": 0,
        "temperature_celsius": 55.0,
        "temperature_margin_celsius": 32.0,
        "energy_joules_total": 50_000.0,
        "clock_events": tuple(
            ClockEvent(reason=reason, active=False, seconds_total=0.0)
            for reason in ("hw_thermal", "sw_thermal", "hw_power_brake", "hw_slowdown")
        ),
        "pcie_generation": 5,
        "pcie_max_generation": 5,
        "pcie_width": 16,
        "pcie_max_width": 16,
        "nvlinks": tuple(
            NvLink(link=link, up=True, recovery_errors_total=0, crc_errors_total=0)
            for link in range(18)
        ),
        "ecc_enabled": True,
        "ecc_errors": tuple(
            EccCount(kind="uncorrected", scope="volatile", memory=memory, count=0)
            for memory in ("dram", "sram")
        ),
        "sram_threshold_exceeded": False,
        "remapped_rows": RemappedRows(corrected=0, uncorrected=0, pending=False, failed=False),
        "fabric": Fabric(state="completed", status=0),
        "recovery_action": "none",
        "persistence_mode": True,
        "processes": (
            GpuProcess(
                pid=4000 + index, unit=f"engine-{'abcd'[index // 2 % 4]}.service", managed=True
            ),
        ),
    }
    return Gpu(uuid=uuid(index), index=index, up=True, **{**well, **fields})


def replica(name: str, *gpus: int, **fields: Any) -> Replica:
    well: dict[str, Any] = {"up": True, "phase": "ready", "gate": "open", "health": "busy"}
    return Replica(
        name=name,
        model=fields.pop("model", "tiny"),
        engine="vllm",
        unit=f"engine-{name}.service",
        port=8100 + ord(name[0]) - ord("a"),
        gpus=gpus,
        **{**well, **fields},
    )


def unit(name: str, state: str = "active", **fields: Any) -> UnitState:
    return UnitState(
        name=name,
        load_state=fields.pop("load_state", "loaded"),
        active_state=state,
        sub_state="running" if state == "active" else "dead",
        **fields,
    )


REPLICAS = (replica("a", 0, 1), replica("b", 2, 3), replica("c", 4, 5), replica("d", 6, 7))


def healthy(count: int = 8) -> Observed:
    """Everything is well; replicas a, b, c and d use two GPUs each."""
    units: tuple[Unit, ...] = (unit(FABRIC_MANAGER), unit(PERSISTENCED))
    return Observed(
        at=AT,
        monotonic=1000.0,
        boot_id=BOOT,
        gpus=Gpus(count=count, devices=tuple(gpu(index) for index in range(count))),
        nvml=Nvml(workers=1, pid=99),
        xids=(),
        units={one.name: one for one in units},
        replicas=REPLICAS,
    )


class Clock:
    """A host whose moments follow one another, TICK seconds apart."""

    def __init__(self, start: Observed | None = None) -> None:
        self.now = start or healthy()
        self.memory = Memory()
        self.health: Health | None = None

    def tick(self, times: int = 1) -> Health:
        for _ in range(times):
            self.now = replaced(
                self.now, at=self.now.at + TICK, monotonic=self.now.monotonic + TICK
            )
            if self.now.gpus is not None:
                grown = tuple(
                    replaced(one, energy_joules_total=one.energy_joules_total + 2500)
                    if one.up and one.energy_joules_total is not None
                    else one
                    for one in self.now.gpus.devices
                )
                self.now = replaced(self.now, gpus=replaced(self.now.gpus, devices=grown))
            self.health, self.memory = judge(self.now, self.memory)
        assert self.health is not None
        return self.health

    def do(self, *changes: Change) -> Clock:
        for change in changes:
            self.now = change(self.now)
        return self

    def ack(self, rule: str | None = None, gpu: str | None = None) -> list[Acknowledged]:
        self.memory, done = acknowledge(self.memory, rule, gpu, self.now.at)
        return done

    def pass_seconds(self, seconds: float) -> Health:
        return self.tick(int(seconds / TICK) + 1)


def of(index: int, **fields: Any) -> Change:
    """GPU *index* reads so."""

    def change(now: Observed) -> Observed:
        assert now.gpus is not None
        devices = tuple(
            replaced(one, **fields) if one.index == index else one for one in now.gpus.devices
        )
        return replaced(now, gpus=replaced(now.gpus, devices=devices))

    return change


def away(index: int, problem: str) -> Change:
    """GPU *index* does not answer: nothing is read of it but that it was here."""

    def change(now: Observed) -> Observed:
        assert now.gpus is not None
        devices = tuple(
            Gpu(
                uuid=one.uuid,
                index=one.index,
                up=False,
                problem=problem,  # type: ignore[arg-type]
                pci_bus_id=one.pci_bus_id,
                name=one.name,
            )
            if one.index == index
            else one
            for one in now.gpus.devices
        )
        return replaced(now, gpus=replaced(now.gpus, devices=devices))

    return change


def back(index: int, **fields: Any) -> Change:
    """GPU *index* answers, as it does when it is well."""

    def change(now: Observed) -> Observed:
        assert now.gpus is not None
        devices = tuple(
            gpu(index, **fields) if one.index == index else one for one in now.gpus.devices
        )
        return replaced(now, gpus=replaced(now.gpus, devices=devices))

    return change


def forgotten(index: int) -> Change:
    """The inventory no longer has GPU *index*."""

    def change(now: Observed) -> Observed:
        assert now.gpus is not None
        devices = tuple(one for one in now.gpus.devices if one.index != index)
        return replaced(now, gpus=replaced(now.gpus, devices=devices))

    return change


def reset(index: int) -> Change:
    """GPU *index* was reset: it is well, and its counters began anew."""
    return back(index, energy_joules_total=0.0)


def set_to(**fields: Any) -> Change:
    return lambda now: replaced(now, **fields)


def xid(index: int | None, number: int, ago: float = 1.0, **fields: Any) -> Change:
    """The kernel log has XID *number*, of GPU *index*, *ago* seconds before the next tick."""

    def change(now: Observed) -> Observed:
        event = XidEvent(
            at=now.at + TICK - ago,
            xid=number,
            pci_bus_id=None if index is None else place(index),
            source="kmsg",
            **fields,
        )
        return replaced(now, xids=(*(now.xids or ()), event))

    return change


def rebooted(boot: str = "boot-2") -> Change:
    """The host was booted: another kernel log, counters from nothing."""

    def change(now: Observed) -> Observed:
        return replaced(now, boot_id=boot, xids=(), monotonic=20.0)

    return change


def rules(reasons: Sequence[Reason]) -> list[str]:
    return [reason.rule for reason in reasons]


def drained(health: Health) -> set[str]:
    """The replicas that are to be drained."""
    return {
        name
        for name, verdict in health.replicas.items()
        if any(reason.acts and reason.state == "unhealthy" for reason in verdict.reasons)
    }
