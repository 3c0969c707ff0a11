"""How faults end, and that they do not end otherwise: the last column of docs/health.md."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from farrier_agent.gpus import Fabric, Gpus, NvLink, Nvml
from farrier_agent.health.rules import BY_NAME

from tests.agent.health.faults import held_down, nvml, rows_of_memory
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
    uuid,
    xid,
)


class Row(NamedTuple):
    """After *fault*, which holds within *ticks*, *ends* ends *rule* with look number *looks*."""

    rule: str
    fault: tuple[Change, ...]
    ends: tuple[Change, ...]
    looks: int
    ticks: int = 2


def reading(now_reads: Clock) -> Gpus:
    assert now_reads.now.gpus is not None
    return now_reads.now.gpus


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


def test_a_second_xid_after_the_reset_is_a_second_fault() -> None:
    clock = Clock()
    clock.tick()
    first = clock.do(xid(2, 119)).tick(2).host.reasons[0]
    assert clock.do(reset(2)).tick(3).host.state == "healthy"
    second = clock.do(xid(2, 95)).tick().host.reasons[0]
    assert second.rule == "xid-reset"
    assert second.since_at > first.since_at


def test_programs_that_crash_seldom_again_are_forgiven_within_the_hour() -> None:
    clock = Clock()
    clock.tick()
    health = clock.do(*(xid(2, 31, ago) for ago in (3000, 2000, 1000, 10))).tick()
    assert rules(health.host.reasons) == ["xid-app-repeated"]
    assert clock.pass_seconds(3000).host.state == "healthy"


def test_the_same_fatal_xid_in_three_boots_is_the_hardwares() -> None:
    clock = Clock()
    clock.tick()
    for boot in ("boot-2", "boot-3"):
        health = clock.do(xid(2, 119)).tick(2)
        assert rules(health.host.reasons) == ["xid-reset"]
        assert clock.do(rebooted(boot), reset(2)).tick(3).host.state == "healthy"
        clock.pass_seconds(3600)
    health = clock.do(xid(2, 119)).tick(2)
    assert set(rules(health.host.reasons)) == {"xid-reset", "xid-contact"}
    (contact,) = [one for one in health.host.reasons if one.rule == "xid-contact"]
    assert "after two reboots" in contact.text
    assert contact.next == "have the hardware inspected, then return the board"


def test_another_xid_in_each_boot_is_not() -> None:
    clock = Clock()
    clock.tick()
    for boot, number in (("boot-2", 119), ("boot-3", 95), ("boot-4", 62)):
        clock.do(xid(2, number)).tick(2)
        assert clock.do(rebooted(boot), reset(2)).tick(3).host.state == "healthy"
        clock.pass_seconds(3600)


def test_losing_sight_sets_no_fault_that_was_on_its_way() -> None:
    clock = Clock()
    clock.tick()
    clock.do(of(3, temperature_margin_celsius=2.0)).tick(4)
    health = clock.do(set_to(gpus=None)).pass_seconds(600)
    assert set(rules(health.host.reasons)) == {"data-stale"}
    # after so long a gap the looks are not in a row: the minute begins anew
    clock.do(set_to(gpus=healthy().gpus), of(3, temperature_margin_celsius=2.0))
    assert "temperature-margin" not in rules(clock.tick(3).host.reasons)
    assert "temperature-margin" in rules(clock.pass_seconds(60).host.reasons)


def test_one_reading_handed_in_again_and_again_is_one_look() -> None:
    clock = Clock()
    clock.tick()
    clock.do(of(3, persistence_mode=False), set_to(read=clock.now.monotonic + 1))
    clock.tick(10)
    assert clock.health is not None
    assert clock.health.host.state == "healthy"
    assert "persistence-off" in rules(
        clock.do(set_to(read=clock.now.monotonic)).tick().host.reasons
    )


def test_what_flickers_neither_begins_nor_ends() -> None:
    clock = Clock()
    clock.tick()
    for look in range(40):
        health = clock.do(of(3, persistence_mode=look % 2 == 0)).tick()
        assert health.host.state == "healthy"
    clock.do(of(3, persistence_mode=False)).tick(2)
    for look in range(40):
        health = clock.do(of(3, persistence_mode=look % 2 == 0)).tick()
        assert rules(health.host.reasons) == ["persistence-off"]


def test_a_gpu_whose_recovery_nobody_sees_says_what_clears_it() -> None:
    clock = Clock()
    clock.tick()
    health = clock.do(away(2, "lost")).tick()
    (reason,) = health.host.reasons
    assert reason.latched
    assert reason.clears is not None
    assert "farrier-agent ack" in reason.clears


def test_gpus_without_counters_of_energy_show_a_reset_by_their_clocks() -> None:
    start = healthy()
    for index in range(8):
        start = of(index, energy_joules_total=None)(start)
    clock = Clock(start)
    events = reading(clock).devices[2].clock_events
    grown = tuple(type(one)(reason=one.reason, active=False, seconds_total=40.0) for one in events)
    clock.do(of(2, clock_events=grown)).tick(2)
    assert clock.do(xid(2, 119)).tick().host.state == "unhealthy"
    clock.do(back(2, energy_joules_total=None))
    assert clock.tick(2).host.state == "healthy"


def test_crashes_that_the_log_no_longer_has_still_count() -> None:
    """Of one kind only the last twenty XIDs are kept, and one crash may tell thirty."""
    clock = Clock()
    clock.tick()
    for _ in range(4):
        lines = tuple(xid(2, 31, ago / 10) for ago in range(20, 0, -1))
        health = clock.do(set_to(xids=()), *lines).tick()
        clock.pass_seconds(300)
    assert rules(health.host.reasons) == ["xid-app-repeated"]


def test_an_hour_without_a_kernel_log_forgives_no_crash() -> None:
    clock = Clock()
    clock.tick()
    clock.do(*(xid(2, 31, ago) for ago in (3000, 2000, 1000, 10))).tick()
    # the XIDs of before are handed in meanwhile
    health = clock.do(set_to(kernel_log_problem="EIO")).pass_seconds(4000)
    assert "xid-app-repeated" in rules(health.host.reasons)
    health = clock.do(set_to(kernel_log_problem=None)).tick(2)
    assert health.host.state == "healthy"


def test_a_clean_up_beside_a_fatal_error_is_no_crash_of_a_program() -> None:
    clock = Clock()
    clock.tick()
    for ago in (3000, 2000, 1000, 10):
        clock.do(xid(2, 95, ago), xid(2, 45, ago - 1))
    assert set(rules(clock.tick().host.reasons)) == {"xid-reset"}


def test_without_nvml_the_bus_still_tells_which_gpus_are_gone() -> None:
    clock = Clock()
    clock.tick()
    clock.do(away(2, "gone"), nvml_hangs := set_to(nvml=Nvml(kind="hangs")))
    gone = tuple(one for one in reading(clock).devices if not one.up)
    health = clock.do(set_to(gpus=Gpus(count=None, devices=gone)), nvml_hangs).tick(3)
    assert rules(health.gpus[uuid(2)].reasons) == ["gpu-missing"]
    (stale,) = health.gpus[uuid(3)].reasons
    assert (stale.rule, stale.next) == ("data-stale", "see why the agent cannot read")
    assert drained(health) == {"b"}


def test_a_fabric_that_is_no_longer_told_of_is_no_recovery() -> None:
    clock = Clock()
    clock.tick()
    clock.do(of(2, fabric=Fabric(state="in_progress", status=0))).tick(2)
    for index in range(8):
        clock.do(of(index, fabric=None))
    assert rules(clock.tick(10).host.reasons) == ["fabric-not-ready"]


def test_one_reading_that_fails_is_not_stale_and_three_are() -> None:
    clock = Clock()
    clock.tick()
    well = clock.now.gpus
    for _ in range(5):
        assert clock.do(set_to(gpus=None)).tick(2).host.state == "healthy"
        assert clock.do(set_to(gpus=well)).tick().host.state == "healthy"
    assert clock.do(set_to(gpus=None)).tick(3).host.state == "unknown"


def test_a_reset_and_a_quiet_day_do_not_forgive_five_fatal_errors() -> None:
    clock = Clock()
    clock.tick()
    clock.do(*(xid(2, 119, ago) for ago in (4000, 3000, 2000, 1000, 1))).tick()
    clock.do(reset(2)).tick(5)
    day = set_to(at=clock.now.at + 100_000, monotonic=clock.now.monotonic + 100_000)
    assert rules(clock.do(day).tick(5).host.reasons) == ["xid-contact"]
    clock.ack("xid-contact")
    assert clock.tick(2).host.state == "healthy"


def test_what_happens_again_after_the_reset_wants_another_reset() -> None:
    clock = Clock()
    clock.tick()
    clock.do(xid(2, 119)).tick(2)
    assert clock.do(reset(2)).tick().host.state == "unhealthy"  # one good look
    clock.do(xid(2, 119)).tick()
    health = clock.do(set_to(xids=())).tick(20)
    assert rules(health.host.reasons) == ["xid-reset"]
    assert clock.do(reset(2)).tick(2).host.state == "healthy"


def test_a_replica_that_is_no_longer_configured_takes_its_reasons_along() -> None:
    clock = Clock()
    clock.tick()
    clock.do(set_to(replicas=(replica("a", 0, phase="failed"), replica("b", 2)))).tick()
    health = clock.do(set_to(replicas=(replica("b", 2),))).tick()
    assert health.host.reasons == ()


def test_fatal_errors_of_other_days_do_not_add_up() -> None:
    clock = Clock()
    clock.tick()
    clock.do(*(xid(2, 119, 100_000 + 1000 * n) for n in range(4)), xid(2, 119))
    assert rules(clock.tick(2).host.reasons) == ["xid-reset"]


def test_an_xid_from_before_the_first_reading_is_its_gpus_and_nobody_elses() -> None:
    clock = Clock()
    well = clock.now.gpus
    health = clock.do(set_to(gpus=None), xid(2, 79)).tick(2)
    assert set(rules(health.host.reasons)) == {"data-stale"}
    health = clock.do(set_to(gpus=well)).tick()
    (reason,) = health.host.reasons
    assert (reason.rule, reason.gpu) == ("xid-reboot", uuid(2))


def test_reboots_in_quick_succession_are_as_many_boots() -> None:
    clock = Clock()
    clock.tick()
    for boot in ("boot-2", "boot-3"):
        clock.do(xid(2, 119)).tick(2)
        clock.do(rebooted(boot), reset(2)).tick(3)
    assert "xid-contact" in rules(clock.do(xid(2, 119)).tick(2).host.reasons)


def test_the_second_xid_of_a_burst_counts_as_much_as_the_first() -> None:
    clock = Clock()
    clock.tick()
    for boot, first in (("boot-2", 95), ("boot-3", 62)):
        clock.do(xid(2, first, 2), xid(2, 119)).tick(2)
        clock.do(rebooted(boot), reset(2)).tick(3)
    assert "xid-contact" in rules(clock.do(xid(2, 119)).tick(2).host.reasons)
