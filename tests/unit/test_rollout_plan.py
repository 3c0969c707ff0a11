"""The plan: which hosts, in which order and batches, and what is refused. No host."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farrier.rollout.capacity import can_drain
from farrier.rollout.errors import RefusedError, UsageError
from farrier.rollout.plan import Plan, Wanted, batch_size, make_plan
from farrier.rollout.seen import HostSeen, ReplicaSeen


def replica(name: str = "tiny", **more: Any) -> ReplicaSeen:
    values: dict[str, Any] = {
        "model": name,
        "phase": "ready",
        "gate_open": True,
        "up": True,
        "in_flight": 3,
        "pending": False,
        "invocation": f"run of {name}",
        "verdict": "healthy",
    }
    return ReplicaSeen(name=name, **(values | more))


def host(name: str, *replicas: ReplicaSeen) -> HostSeen:
    return HostSeen(host=name, boot_id=f"boot of {name}", replicas=replicas or (replica(),))


def fleet(*hosts: HostSeen) -> dict[str, HostSeen | None]:
    return {one.host: one for one in hosts}


FOUR = fleet(*(host(f"gpu0{number}") for number in range(1, 5)))


def names(plan: Plan) -> list[list[str]]:
    return [[one.host for one in batch] for batch in plan.batches]


def test_one_host_at_a_time_in_the_order_of_the_inventory() -> None:
    plan = make_plan(Wanted("restart"), FOUR)
    assert names(plan) == [["gpu01"], ["gpu02"], ["gpu03"], ["gpu04"]]
    assert [one.name for one in plan.hosts[0].replicas] == ["tiny"]


def test_the_first_batch_is_a_single_host_whatever_the_batch() -> None:
    assert names(make_plan(Wanted("restart", batch="2"), FOUR)) == [
        ["gpu01"],
        ["gpu02", "gpu03"],
        ["gpu04"],
    ]


def test_the_canary_is_who_is_named_first() -> None:
    wanted = Wanted("restart", batch="50%", first=("gpu03",))
    assert names(make_plan(wanted, FOUR)) == [["gpu03"], ["gpu01", "gpu02"], ["gpu04"]]
    two = Wanted("restart", first=("gpu04", "gpu02"))
    assert names(make_plan(two, FOUR)) == [["gpu04"], ["gpu02"], ["gpu01"], ["gpu03"]]


OLD, NEW = "0" * 64, "f" * 64


def test_only_what_has_something_to_go_back_to_is_rolled_back() -> None:
    two = HostSeen(
        host="gpu01",
        replicas=(
            replica(unit=NEW, configuration=NEW, previous=OLD),
            replica("embed", unit=NEW, configuration=NEW),
        ),
    )
    same = host("gpu02", replica(unit=NEW, configuration=NEW, previous=NEW))
    plan = make_plan(Wanted("rollback"), fleet(two, same))
    assert [(one.host, [it.name for it in one.replicas]) for one in plan.hosts] == [
        ("gpu01", ["tiny"])
    ]
    assert [(one.what, one.why) for one in plan.left_out] == [
        ("gpu01:embed", "there is nothing to go back to"),
        ("gpu02:tiny", "there is nothing to go back to"),
    ]
    assert make_plan(Wanted("rollback"), fleet(same)).hosts == ()


def test_what_a_replica_goes_back_to() -> None:
    assert replica(unit=NEW, configuration=NEW, previous=OLD).back == OLD
    assert replica(unit=NEW, configuration=None, previous=OLD, up=False).back == OLD
    assert replica(unit=NEW, configuration=NEW).back is None
    assert replica(unit=NEW, configuration=NEW, previous=NEW).back is None
    assert replica().back is None
    # put back, and not started yet: never forward again from there
    put = replica(unit=OLD, configuration=NEW, previous=NEW, put_back=OLD, pending=True)
    assert put.back == OLD
    down = replica(unit=OLD, previous=NEW, put_back=OLD, up=False, phase="failed")
    assert down.back == OLD
    # it is well: then the newer one, which was warm too, is what another step goes to
    assert replica(unit=OLD, configuration=OLD, previous=NEW, put_back=OLD).back == NEW
    assert replica(unit=OLD, configuration=OLD, put_back=OLD).back is None
    # a converge has written another unit since
    assert replica(unit=NEW, configuration=OLD, previous=OLD, put_back=OLD).back == OLD


def test_who_serves_nobody_comes_before_those_who_serve() -> None:
    sick = {**FOUR, "gpu03": host("gpu03", replica(phase="failed", up=False, gate_open=False))}
    assert names(make_plan(Wanted("restart"), sick))[0] == ["gpu03"]
    canary = make_plan(Wanted("restart", first=("gpu02",)), sick)
    assert names(canary)[:2] == [["gpu02"], ["gpu03"]]


def test_limit_and_model_and_pending_choose() -> None:
    mixed = fleet(
        host("gpu01", replica("chat", pending=True), replica("embed")),
        host("gpu02", replica("chat")),
        host("gpu03", replica("embed")),
    )
    plan = make_plan(Wanted("restart", models=("chat",)), mixed)
    assert [(one.host, [it.name for it in one.replicas]) for one in plan.hosts] == [
        ("gpu01", ["chat"]),
        ("gpu02", ["chat"]),
    ]
    pending = make_plan(Wanted("restart", pending=True), mixed)
    assert [(one.host, [it.name for it in one.replicas]) for one in pending.hosts] == [
        ("gpu01", ["chat"])
    ]
    assert {one.what for one in pending.left_out} == {"gpu02", "gpu03"}
    assert names(make_plan(Wanted("restart", limit=("gpu03",)), mixed)) == [["gpu03"]]


def test_a_reboot_is_of_every_replica_of_its_hosts() -> None:
    mixed = fleet(host("gpu01", replica("chat"), replica("embed")), host("gpu02", replica("embed")))
    plan = make_plan(Wanted("reboot", models=("chat",)), mixed)
    assert [(one.host, len(one.replicas)) for one in plan.hosts] == [("gpu01", 2)]


def test_what_somebody_keeps_drained_is_left_to_him() -> None:
    held = replica("chat", phase="drained", gate_open=False, held_by=("alice: ticket 7",))
    mixed = fleet(host("gpu01", held, replica("embed")), host("gpu02", replica("chat")))
    plan = make_plan(Wanted("restart"), mixed)
    assert [(one.host, [it.name for it in one.replicas]) for one in plan.hosts] == [
        ("gpu01", ["embed"]),
        ("gpu02", ["chat"]),
    ]
    assert [(one.what, one.why) for one in plan.left_out] == [
        ("gpu01:chat", "kept drained by alice: ticket 7")
    ]
    assert names(make_plan(Wanted("reboot"), mixed)) == [["gpu02"]]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Wanted("restart", limit=("gpu09",)), "no host gpu09"),
        (Wanted("restart", models=("grok",)), "no model grok"),
        (Wanted("restart", limit=("gpu01",), first=("gpu02",)), "--limit"),
        (Wanted("restart", batch="0"), "--batch 0"),
        (Wanted("restart", batch="101%"), "--batch 101%"),
        (Wanted("restart", batch="½"), "--batch ½"),
        (Wanted("restart", pending=True, first=("gpu01",)), "no restart is pending"),
    ],
)
def test_what_makes_no_sense_is_said(wanted: Wanted, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_plan(wanted, FOUR)


def test_a_host_that_cannot_be_asked_stops_a_plan_that_needs_it() -> None:
    silent = {**FOUR, "gpu02": None}
    with pytest.raises(RefusedError, match=r"gpu02: could not be asked"):
        make_plan(Wanted("restart"), silent)
    assert names(make_plan(Wanted("restart", limit=("gpu01",)), silent)) == [["gpu01"]]


def test_max_unavailable_cuts_batches_and_refuses_what_cannot_be() -> None:
    wanted = Wanted("restart", batch="3", max_unavailable=2)
    assert names(make_plan(wanted, FOUR)) == [["gpu01"], ["gpu02", "gpu03"], ["gpu04"]]
    sick = {**FOUR, "gpu04": host("gpu04", replica(up=False))}
    with pytest.raises(RefusedError, match="--max-unavailable 1"):
        make_plan(Wanted("restart", limit=("gpu01",), max_unavailable=1), sick)
    # to mend the sick one takes nothing away
    mend = make_plan(Wanted("restart", limit=("gpu04",), max_unavailable=1), sick)
    assert names(mend) == [["gpu04"]]


@given(
    count=st.integers(1, 30),
    down=st.sets(st.integers(0, 29)),
    batch=st.one_of(st.integers(1, 40).map(str), st.integers(1, 100).map(lambda p: f"{p}%")),
    bound=st.one_of(st.none(), st.integers(1, 5)),
    first=st.lists(st.integers(0, 29), unique=True, max_size=3),
)
def test_every_host_is_in_exactly_one_batch_and_no_batch_is_too_large(
    count: int, down: set[int], batch: str, bound: int | None, first: list[int]
) -> None:
    every = fleet(
        *(host(f"h{number:02}", replica(up=number not in down)) for number in range(count))
    )
    canaries = tuple(f"h{number:02}" for number in first if number < count)
    wanted = Wanted("restart", batch=batch, max_unavailable=bound, first=canaries)
    try:
        plan = make_plan(wanted, every)
    except RefusedError:
        sick = sum(number in down for number in range(count))
        assert bound is not None
        assert sick + 1 > bound
        return
    flat = [one for members in names(plan) for one in members]
    assert sorted(flat) == sorted(every)
    assert flat[: len(canaries)] == list(canaries)
    assert all(1 <= len(one) <= batch_size(batch, count) for one in names(plan))
    for members in plan.batches if bound is not None else ():
        serving = sum(it.serves for one in members for it in one.replicas)
        sick = sum(not it.serves for one in every.values() if one for it in one.replicas)
        assert not serving or serving + sick <= (bound or 0)


def test_the_others_carry_the_load_or_it_waits() -> None:
    busy = [host(f"gpu0{n}", replica(in_flight=40)) for n in (1, 2, 3)]
    drained = {"gpu01": ["tiny"]}
    (room,) = can_drain(drained, busy, limit=60)
    assert (room.load, room.others, room.why) == (120, ("gpu02:tiny", "gpu03:tiny"), None)
    (room,) = can_drain(drained, busy, limit=59)
    assert "120 requests for tiny are in flight, 60 for each" in (room.why or "")
    assert not room.gap


def test_a_queue_at_the_others_means_that_they_are_busy() -> None:
    hosts = [host("gpu01"), host("gpu02", replica(waiting=2)), host("gpu03", replica(waiting=0))]
    (room,) = can_drain({"gpu01": ["tiny"]}, hosts, limit=100)
    assert "2 requests wait" in (room.why or "")
    (room,) = can_drain({"gpu02": ["tiny"]}, hosts, limit=100)
    assert room.why is None


def test_the_only_replica_of_a_model_is_a_gap() -> None:
    hosts = [host("gpu01", replica("chat"), replica("embed")), host("gpu02", replica("chat"))]
    rooms = can_drain({"gpu01": ["chat", "embed"]}, hosts, limit=100)
    assert [(one.model, one.gap) for one in rooms] == [("chat", False), ("embed", True)]
    allowed = can_drain({"gpu01": ["chat", "embed"]}, hosts, limit=100, allow_gap=True)
    assert [one.why for one in allowed] == [None, None]


@pytest.mark.parametrize(
    "other",
    [
        replica(phase="warming"),
        replica(gate_open=False),
        replica(gate_open=None),
        replica(up=None),
        replica(verdict="unhealthy"),
    ],
)
def test_who_does_not_serve_for_sure_carries_nothing(other: ReplicaSeen) -> None:
    (room,) = can_drain({"gpu01": ["tiny"]}, [host("gpu01"), host("gpu02", other)], limit=100)
    assert room.gap
    (room,) = can_drain({"gpu01": ["tiny"]}, [host("gpu01"), None], limit=100)
    assert room.gap


def test_where_nobody_serves_nothing_can_be_lost() -> None:
    assert can_drain({"gpu01": ["tiny"]}, [host("gpu01", replica(up=False))], limit=1) == ()


def test_what_cannot_be_counted_is_taken_for_a_full_replica() -> None:
    hosts = [host("gpu01", replica(in_flight=None)), host("gpu02", replica(in_flight=1))]
    (room,) = can_drain({"gpu01": ["tiny"]}, hosts, limit=50)
    assert room.load == 51
    assert room.why


def test_a_reboot_is_pending_where_packages_ask_for_it() -> None:
    asked = HostSeen(host="gpu01", replicas=(replica(),), reboot_required=True)
    quiet = HostSeen(host="gpu02", replicas=(replica(),), reboot_required=False)
    unknown = host("gpu03")
    older = host("gpu04", replica(pending=True))
    four = fleet(asked, quiet, unknown, older)
    plan = make_plan(Wanted("reboot", pending=True), four)
    assert names(plan) == [["gpu01"], ["gpu04"]]
    assert {one.why for one in plan.left_out} == {"no reboot and no restart is pending"}
    assert names(make_plan(Wanted("restart", pending=True), four)) == [["gpu04"]]
