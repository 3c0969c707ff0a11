"""XIDs that come again: after a reset, after reboots, in bursts, seldom."""

from __future__ import annotations

from tests.agent.health.scene import Clock, rebooted, reset, rules, set_to, uuid, xid


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
