"""``farrier-agent ack``: what it ends, and what not."""

from __future__ import annotations

import pytest
from farrier_agent.gpus import NvLink

from tests.agent.health.scene import (
    TICK,
    Clock,
    away,
    forgotten,
    of,
    rules,
    uuid,
    xid,
)


def test_an_ack_ends_what_is_latched_and_that_xid_counts_no_more() -> None:
    clock = Clock()
    clock.tick()
    clock.do(xid(2, 119)).tick()
    (done,) = clock.ack("xid-reset")
    assert (done.rule, done.gpu, done.forget) == ("xid-reset", uuid(2), False)
    assert str(done) == f"xid-reset of GPU 2 ({uuid(2)})"
    assert clock.tick(20).host.state == "healthy"
    assert clock.do(xid(2, 119)).tick().host.state == "unhealthy"


def test_an_ack_clears_only_what_it_names() -> None:
    clock = Clock()
    clock.tick()
    clock.do(xid(2, 119), xid(3, 119), xid(2, 74), away(5, "lost")).tick()
    clock.ack("xid-reset", uuid(3))
    assert set(rules(clock.tick().host.reasons)) == {"xid-reset", "xid-link", "gpu-lost"}
    clock.ack(None, "2")  # by its index
    assert set(rules(clock.tick().host.reasons)) == {"gpu-lost"}


def test_a_bare_ack_ends_all_that_is_latched_and_nothing_that_is_seen() -> None:
    clock = Clock()
    clock.tick()
    clock.do(
        xid(2, 119), xid(3, 79), of(4, persistence_mode=False), of(5, recovery_action="gpu_reset")
    ).tick(2)
    clock.ack()
    # what a look shows is back with the next one
    assert set(rules(clock.tick().host.reasons)) == {"persistence-off", "gpu-recovery-action"}


def test_an_ack_of_contact_begins_its_count_anew() -> None:
    clock = Clock()
    clock.tick()
    clock.do(*(xid(2, 119, ago) for ago in (4000, 3000, 2000, 1000, 1))).tick()
    assert {one.rule for one in clock.ack()} == {"xid-reset", "xid-contact"}
    assert clock.tick(5).host.state == "healthy"
    assert set(rules(clock.do(xid(2, 119)).tick().host.reasons)) == {"xid-reset"}


def test_an_ack_of_a_missing_gpu_forgets_it_where_it_is_named() -> None:
    clock = Clock()
    clock.tick()
    clock.do(xid(2, 79), away(2, "gone"), away(3, "gone")).tick(2)
    assert "gpu-missing" not in {one.rule for one in clock.ack()}
    (done,) = clock.ack("gpu-missing", uuid(2))
    assert (done.gpu, done.forget) == (uuid(2), True)
    health = clock.do(forgotten(2)).tick(2)
    assert uuid(2) not in health.gpus
    assert {one.gpu for one in health.host.reasons} == {uuid(3), None}
    # replica b is still to use it
    (wants,) = [one for one in health.host.reasons if one.gpu is None]
    assert (wants.rule, wants.replica) == ("gpu-missing", "b")


def test_a_gpu_that_the_inventory_lost_is_not_healthy_and_can_be_forgotten() -> None:
    clock = Clock()
    clock.tick()
    health = clock.do(forgotten(7)).tick(3)
    assert health.gpus[uuid(7)].state == "unknown"
    (reason,) = health.gpus[uuid(7)].reasons
    assert reason.command == f"farrier-agent ack gpu-missing {uuid(7)}"
    (done,) = clock.ack("gpu-missing", uuid(7))
    assert done.forget
    assert uuid(7) not in clock.tick().gpus


def test_an_ack_of_a_link_takes_what_is_up_now_as_what_should_be() -> None:
    clock = Clock()
    clock.tick()
    clock.do(of(3, nvlinks=tuple(NvLink(link=n, up=n != 5) for n in range(18)))).tick(2)
    assert [one.rule for one in clock.ack("nvlink-down", uuid(3))] == ["nvlink-down"]
    assert clock.tick(5).host.state == "healthy"
    clock.do(of(3, nvlinks=tuple(NvLink(link=n, up=n not in {5, 6}) for n in range(18))))
    assert rules(clock.tick(2).host.reasons) == ["nvlink-down"]


@pytest.mark.parametrize(
    ("rule", "gpu", "says"),
    [("xid-resett", None, "no rule is named xid-resett"), (None, "99", "no GPU is named 99")],
)
def test_an_ack_of_what_there_is_not_is_refused(rule: str | None, gpu: str, says: str) -> None:
    clock = Clock()
    clock.tick()
    with pytest.raises(ValueError, match=says):
        clock.ack(rule, gpu)


def test_there_is_nothing_to_acknowledge_on_a_healthy_host() -> None:
    clock = Clock()
    clock.tick()
    assert clock.ack() == []
    assert clock.tick(int(60 / TICK)).host.state == "healthy"
