"""What is no fault, though it looks like one: the host stays healthy."""

from __future__ import annotations

from farrier_agent.gpus import ClockEvent, Fabric, GpuProcess, NvLink

from tests.agent.health.changes import blind, fabric_manager, held_down, uncorrected
from tests.agent.health.scene import Change, of, replica, set_to, xid

OPTIONAL = (
    *("recovery_action", "remapped_rows", "ecc_enabled", "persistence_mode", "processes", "fabric"),
    *("utilization_ratio", "pcie_width", "energy_joules_total", "sram_threshold_exceeded"),
    *("temperature_margin_celsius", "temperature_celsius"),
)
"""What a GPU need not tell."""

WELL: dict[str, tuple[Change, ...]] = {
    "nothing": (),
    "an idle GPU trains its link down": (
        of(3, pcie_generation=1, utilization_ratio=0.0, performance_state=8),
    ),
    "at work, but saving power": (of(3, pcie_generation=1, performance_state=5),),
    "XID 43, a program's own fault": (xid(3, 43),),
    "XID 63, a row was exchanged": (xid(3, 63),),
    "XID 31 once": (xid(3, 31),),
    "XID 94, contained": (xid(3, 94),),
    "XID 48 with a recovery action that says none": (xid(3, 48),),
    "XID 48 with XID 63 beside it": (blind(3), xid(3, 48), xid(3, 63)),
    "a burst of XIDs of one crash": tuple(xid(3, 13, ago) for ago in (9, 8, 7, 6, 5, 4)),
    "an XID that no catalog has": (xid(3, 999),),
    "uncorrected, and the driver wants nothing done": (uncorrected(3),),
    "a fabric that is not needed": (
        set_to(fabric="none"),
        of(3, fabric=Fabric(state="not_started", status=0)),
        fabric_manager("failed"),
    ),
    "no fabric, no manager": (
        *(of(index, fabric=None) for index in range(8)),
        fabric_manager("inactive", load_state="not-found"),
    ),
    "no fabric, and a manager that does not run": (
        *(of(index, fabric=None) for index in range(8)),
        fabric_manager("inactive"),
    ),
    "GPUs without NVLinks in use": (
        *(of(n, fabric=None, nvlinks=(NvLink(link=0, up=False),)) for n in range(8)),
    ),
    "a GPU without a bridge beside those that have one": (
        *(of(n, fabric=None) for n in range(8)),
        of(3, nvlinks=(NvLink(link=0, up=False), NvLink(link=1, up=False))),
    ),
    "another product with fewer links": (
        of(3, name="NVIDIA A30", nvlinks=tuple(NvLink(link=link, up=True) for link in range(4))),
    ),
    "a stranger on a GPU of nobody": (
        set_to(replicas=(replica("a", 0),)),
        of(3, processes=(GpuProcess(pid=77, managed=False),)),
    ),
    "a GPU that tells next to nothing": (
        of(3, **dict.fromkeys(OPTIONAL), nvlinks=(), clock_events=(), ecc_errors=()),
    ),
    "a moment of heat": (
        of(3, clock_events=(ClockEvent(reason="hw_thermal", active=True, seconds_total=0.1),)),
    ),
    "clocks capped by power, as they are at work": (held_down(3, "sw_power_cap", "idle"),),
}  # fmt: skip
