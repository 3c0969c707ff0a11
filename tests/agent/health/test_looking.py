"""What counts as a look, and what is concluded from what is not seen."""

from __future__ import annotations

from farrier_agent.gpus import Fabric, Gpus, Nvml

from tests.agent.health.scene import (
    Clock,
    away,
    back,
    drained,
    healthy,
    of,
    replica,
    rules,
    set_to,
    uuid,
    xid,
)


def reading(now_reads: Clock) -> Gpus:
    assert now_reads.now.gpus is not None
    return now_reads.now.gpus


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


def test_a_replica_that_is_no_longer_configured_takes_its_reasons_along() -> None:
    clock = Clock()
    clock.tick()
    clock.do(set_to(replicas=(replica("a", 0, phase="failed"), replica("b", 2)))).tick()
    health = clock.do(set_to(replicas=(replica("b", 2),))).tick()
    assert health.host.reasons == ()
