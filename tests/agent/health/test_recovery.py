"""How faults end, and that they do not end otherwise: the last column of docs/health.md."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from farrier_agent.gpus import Fabric, NvLink, Nvml
from farrier_agent.health.rules import BY_NAME

from tests.agent.health.changes import held_down, nvml, rows_of_memory
from tests.agent.health.scene import (
    Change,
    Clock,
    away,
    back,
    drained,
    healthy,
    of,
    rebooted,
    replica,
    reset,
    rules,
    set_to,
    xid,
)


class Row(NamedTuple):
    """After *fault*, which holds within *ticks*, *ends* ends *rule* with look number *looks*."""

    rule: str
    fault: tuple[Change, ...]
    ends: tuple[Change, ...]
    looks: int
    ticks: int = 2


ANSWERS: tuple[Change, ...] = (set_to(nvml=Nvml(), gpus=healthy().gpus),)
ENDS: dict[str, Row] = {
    "NVML answers again": Row("nvml-hangs", (nvml("hangs"),), ANSWERS, 3),
    "fresh data": Row("data-stale", (nvml("hangs"),), ANSWERS, 1, ticks=3),
    "the library fits again": Row("nvml-mismatch", (nvml("mismatch"),), ANSWERS, 2),
    "a GPU is back": Row("gpu-missing", (away(2, "gone"),), (back(2),), 3),
    "a GPU answers again": Row("gpu-hangs", (away(2, "hangs"),), (back(2),), 3),
    "a lost GPU after a reset": Row("gpu-lost", (away(2, "lost"),), (reset(2),), 2),
    "a lost GPU after a reboot": Row("gpu-lost", (away(2, "lost"),), (rebooted(), back(2)), 2),
    "XID 119 after a reset": Row("xid-reset", (xid(2, 119),), (reset(2),), 2),
    "XID 119 after a reboot": Row("xid-reset", (xid(2, 119),), (rebooted(), reset(2)), 2),
    "XID 79 after a reboot": Row("xid-reboot", (xid(2, 79),), (rebooted(), reset(2)), 2),
    "XID 79 of nobody, after a reboot": Row("xid-reboot", (xid(None, 79),), (rebooted(),), 2),
    "the driver is content": Row(
        "gpu-recovery-action",
        (of(2, recovery_action="gpu_reset"),),
        (of(2, recovery_action="none"),),
        2,
    ),
    "content, whatever XID 154 said before": Row(
        "gpu-recovery-action",
        (of(2, recovery_action="gpu_reset"), xid(2, 154, recovery_action="gpu_reset")),
        (of(2, recovery_action="none"),),
        2,
    ),
    "XID 154, then a reset": Row(
        "gpu-recovery-action", (xid(2, 154, recovery_action="gpu_reset"),), (reset(2),), 2
    ),
    "XID 154 takes it back": Row(
        "gpu-recovery-action",
        (xid(2, 154, recovery_action="gpu_reset"),),
        (xid(2, 154, recovery_action="none"),),
        2,
    ),
    "XID 119, then 154 says none": Row(
        "xid-reset", (xid(2, 119),), (xid(2, 154, recovery_action="none"),), 2
    ),
    "rows exchanged": Row(
        "row-remap-pending",
        (of(2, remapped_rows=rows_of_memory(pending=True)),),
        (of(2, remapped_rows=rows_of_memory()),),
        2,
    ),
    "registered": Row(
        "fabric-not-ready",
        (of(2, fabric=Fabric(state="in_progress", status=0)),),
        (of(2, fabric=Fabric(state="completed", status=0)),),
        2,
    ),
    "the link is up": Row(
        "nvlink-down",
        (of(2, nvlinks=tuple(NvLink(link=link, up=link > 0) for link in range(18))),),
        (back(2),),
        3,
    ),
    "the slot is at its best": Row(
        "pcie-degraded", (of(2, pcie_width=8),), (of(2, pcie_width=16),), 7, ticks=14
    ),
    "cool": Row(
        "thermal-slowdown", (held_down(2, "hw_thermal"),), (of(2, clock_events=()), back(2)), 13, 62
    ),
    "eight degrees": Row(
        "temperature-margin",
        (of(2, temperature_margin_celsius=3.0),),
        (of(2, temperature_margin_celsius=8.0),),
        13,
        ticks=14,
    ),
    "persistence on": Row(
        "persistence-off", (of(2, persistence_mode=False),), (of(2, persistence_mode=True),), 2
    ),
    "the kernel log is back": Row(
        "kernel-log-unreadable",
        (set_to(xids=None, kernel_log_problem="no"),),
        (set_to(xids=(), kernel_log_problem=None),),
        2,
    ),
    "it gets on": Row(
        "replica-wedged",
        (set_to(replicas=(replica("a", 0, health="wedged"),)),),
        (set_to(replicas=(replica("a", 0),)),),
        1,
    ),
}


@pytest.mark.parametrize("row", ENDS.values(), ids=ENDS)
def test_it_ends_with_that_look_and_none_before(row: Row) -> None:
    clock = Clock()
    clock.tick()
    health = clock.do(*row.fault).tick(row.ticks)
    (fault,) = [one for one in health.host.reasons if one.rule == row.rule][:1]
    clock.do(*row.ends)
    for look in range(1, row.looks):
        health = clock.tick()
        assert row.rule in rules(health.host.reasons), f"ended with look {look}"
        # it is the same fault all the time
        assert fault.since_at in {one.since_at for one in health.host.reasons}
    assert row.rule not in rules(clock.tick().host.reasons)
    # and it stays ended
    health = clock.tick(40)
    assert row.rule not in rules(health.host.reasons)
    assert drained(health) == set()


STAYS: dict[str, tuple[str, tuple[Change, ...], tuple[Change, ...]]] = {
    "a lost GPU that answers again, never reset": ("gpu-lost", (away(2, "lost"),), (back(2),)),
    "XID 119 and time": ("xid-reset", (xid(2, 119),), ()),
    "XID 119 that the log no longer has": ("xid-reset", (xid(2, 119),), (set_to(xids=()),)),
    "XID 119 and no log": ("xid-reset", (xid(2, 119),), (set_to(xids=None),)),
    "XID 119 and no reading": ("xid-reset", (xid(2, 119),), (nvml("hangs"),)),
    "XID 119 after a reboot that did not help": (
        "xid-reset",
        (xid(2, 119),),
        (rebooted(), reset(2), of(2, recovery_action="gpu_reset")),
    ),
    "XID 119 after a reboot, no reading yet": (
        "xid-reset",
        (xid(2, 119),),
        (rebooted(), set_to(gpus=None)),
    ),
    "XID 119 after the reset of another GPU": ("xid-reset", (xid(2, 119),), (reset(3),)),
    "XID 154 while the reading says none": (
        "gpu-recovery-action",
        (xid(2, 154, recovery_action="gpu_reset"),),
        (of(2, recovery_action="none"),),
    ),
    "XID 154 that the log no longer has": (
        "gpu-recovery-action",
        (xid(2, 154, recovery_action="gpu_reset"),),
        (set_to(xids=()),),
    ),
    "an action, and the GPU is gone": (
        "gpu-recovery-action",
        (of(2, recovery_action="gpu_reset"),),
        (away(2, "gone"),),
    ),
    "a missing GPU, and no reading": ("gpu-missing", (away(2, "gone"),), (set_to(gpus=None),)),
    "a GPU that hung and is now gone": ("gpu-hangs", (away(2, "hangs"),), (away(2, "gone"),)),
    "a failed row, and no reading of rows": (
        "row-remap-failed",
        (of(2, remapped_rows=rows_of_memory(failed=True)),),
        (of(2, remapped_rows=None),),
    ),
    "too few degrees, then six": (
        "temperature-margin",
        (of(2, temperature_margin_celsius=3.0),),
        (of(2, temperature_margin_celsius=6.0),),
    ),
    "half the lanes, and then idle": (
        "pcie-degraded",
        (of(2, pcie_width=8),),
        (of(2, utilization_ratio=0.0, pcie_width=16),),
    ),
    "persistence off, and no reading": (
        "persistence-off",
        (of(2, persistence_mode=False),),
        (set_to(gpus=None),),
    ),
    "NVML hung, and now it is released": ("nvml-hangs", (nvml("hangs"),), (nvml("released"),)),
    "five fatal XIDs, and a reset": (
        "xid-contact",
        tuple(xid(2, 119, ago) for ago in (4000, 3000, 2000, 1000, 1)),
        (reset(2),),
    ),
    "five fatal XIDs, and a reboot": (
        "xid-contact",
        tuple(xid(2, 119, ago) for ago in (4000, 3000, 2000, 1000, 1)),
        (rebooted(), reset(2)),
    ),
}


@pytest.mark.parametrize(("rule", "fault", "after"), STAYS.values(), ids=STAYS)
def test_what_does_not_end_it(
    rule: str, fault: tuple[Change, ...], after: tuple[Change, ...]
) -> None:
    clock = Clock()
    clock.tick()
    before = clock.do(*fault).tick(14)
    assert rule in rules(before.host.reasons)
    for _ in range(50):
        clock.do(*after)
        health = clock.tick()
        assert rule in rules(health.host.reasons)
    if BY_NAME[rule].acts:
        assert drained(health) >= drained(before)
