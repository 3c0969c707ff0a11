"""Whatever happens to a host, in whatever order: what always holds of its verdicts."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from farrier_agent.gpus import ClockEvent, Fabric, Gpu, Gpus, NvLink, Nvml, XidEvent
from farrier_agent.health.judging import WEIGHT, judge
from farrier_agent.health.keeping import decoded, encoded
from farrier_agent.health.memory import Memory
from farrier_agent.health.observed import Observed
from farrier_agent.health.rules import BY_NAME, RULES
from farrier_agent.status import Health
from hypothesis import given
from hypothesis import strategies as st

from tests.agent.health.faults import TABLE, Row
from tests.agent.health.scene import (
    AT,
    REPLICAS,
    Clock,
    away,
    gpu,
    of,
    place,
    reset,
    set_to,
    unit,
    uuid,
    xid,
)

NUMBERS = st.one_of(st.none(), st.floats(allow_nan=True), st.integers(-5, 100))
MAYBE = st.sampled_from((None, True, False))
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "up": st.just(True),
    "temperature_margin_celsius": NUMBERS,
    "temperature_slowdown_celsius": NUMBERS,
    "utilization_ratio": NUMBERS,
    "performance_state": st.one_of(st.none(), st.integers(0, 15)),
    "pcie_width": st.sampled_from((None, 0, 8, 16)),
    "energy_joules_total": st.one_of(st.none(), st.floats(0, 1e9)),
    "ecc_enabled": MAYBE,
    "persistence_mode": MAYBE,
    "sram_threshold_exceeded": MAYBE,
    "retired_pages_pending": MAYBE,
    "recovery_action": st.sampled_from(
        (None, "none", "gpu_reset", "node_reboot", "drain_p2p", "unknown", "strange")
    ),
    "fabric": st.sampled_from(
        (None, Fabric(state="completed", status=0), Fabric(state="?", status=9, problems=("x",)))
    ),
    "nvlinks": st.sampled_from(
        ((), (NvLink(link=0),), (NvLink(link=0, up=True),), (NvLink(link=0, up=False),))
    ),
    "clock_events": st.lists(
        st.builds(
            ClockEvent,
            reason=st.sampled_from(("hw_thermal", "hw_power_brake", "hw_slowdown", "?")),
            active=MAYBE,
            seconds_total=st.one_of(st.none(), st.floats(0, 1e6)),
        ),
        max_size=3,
    ).map(tuple),
    "remapped_rows": st.none(),
}
PROBLEMS: tuple[Literal["lost", "hangs", "gone", "unseen"], ...] = (
    "lost",
    "hangs",
    "gone",
    "unseen",
)


@st.composite
def devices(draw: st.DrawFn) -> Gpus:
    found = []
    for index in draw(st.lists(st.integers(0, 3), unique=True)):
        if draw(st.integers(0, 3)) == 0:
            problem = draw(st.sampled_from(PROBLEMS))
            found.append(Gpu(uuid=uuid(index), index=index, up=False, problem=problem))
        else:
            fields = draw(st.lists(st.sampled_from(sorted(FIELDS)), unique=True, max_size=3))
            values = {name: draw(FIELDS[name]) for name in fields if name != "up"}
            found.append(gpu(index, **values))
    return Gpus(count=len(found), devices=tuple(found))


EVENTS = st.builds(
    XidEvent,
    at=st.floats(AT - 90000, AT + 90000),
    xid=st.sampled_from((13, 31, 43, 45, 48, 54, 63, 74, 78, 79, 94, 119, 149, 154, 999, -1)),
    pci_bus_id=st.sampled_from((None, place(0), place(3), "0000:ff:00.0", "?")),
    uuid=st.sampled_from((None, uuid(1), "GPU-strange")),
    source=st.just("kmsg"),
    text=st.sampled_from(("", "Fatal Link 08", "\x1b[31m\nname=evil")),
    recovery_action=st.sampled_from((None, "none", "gpu_reset", "?")),
)


@st.composite
def moments(draw: st.DrawFn) -> list[Observed]:
    """A history: time mostly goes on, anything may be unreadable."""
    at, monotonic = AT, 100.0
    history = []
    for _ in range(draw(st.integers(1, 8))):
        at += draw(st.sampled_from((5.0, 5.0, 5.0, 400.0, -3600.0)))
        monotonic += draw(st.sampled_from((5.0, 5.0, 5.0, 400.0, -50.0)))
        history.append(
            Observed(
                at=at,
                monotonic=monotonic,
                boot_id=draw(st.sampled_from(("b1", "b1", "b1", "b2", ""))),
                accelerator=draw(st.sampled_from(("cuda", "cuda", "cuda", "cpu"))),
                gpus=draw(st.one_of(st.none(), devices(), devices())),
                read=draw(st.sampled_from((None, None, 1.0))),
                nvml=draw(
                    st.sampled_from(
                        (None, Nvml(), Nvml(kind="hangs"), Nvml(kind="released"), Nvml(kind="?"))
                    )
                ),
                xids=draw(st.one_of(st.none(), st.lists(EVENTS, max_size=6).map(tuple))),
                kernel_log_problem=draw(st.sampled_from((None, "no"))),
                units=draw(
                    st.sampled_from(
                        ({}, {one.name: one for one in (unit("nvidia-fabricmanager.service"),)})
                    )
                ),
                replicas=draw(st.sampled_from((REPLICAS, REPLICAS[:1], ()))),
                fabric=draw(st.sampled_from(("auto", "required", "none"))),
            )
        )
    return history


def faults(health: Health) -> set[tuple[str, str | None, str | None]]:
    return {(one.rule, one.gpu, one.replica) for one in health.host.reasons}


@given(moments())
def test_no_history_raises_and_verdicts_agree_with_their_reasons(history: list[Observed]) -> None:
    memory = Memory()
    for moment in history:
        health, memory = judge(moment, memory)
        told = [health.host, *health.gpus.values(), *health.replicas.values()]
        for verdict in told:
            worst = max((WEIGHT[one.state] for one in verdict.reasons), default=0)
            assert WEIGHT[verdict.state] == worst
            assert set(verdict.reasons) <= set(health.host.reasons)
        assert len(faults(health)) == len(health.host.reasons)
        assert set(health.replicas) == {one.name for one in moment.replicas}
        for reason in health.host.reasons:
            assert reason.text.isprintable()
            assert "{" not in (reason.command or "")
            assert not reason.acts or reason.state == "unhealthy"


@given(st.lists(st.one_of(st.none(), st.none(), devices()), min_size=1, max_size=12))
def test_no_gpu_is_healthy_that_was_not_seen_to_be_for_three_looks(
    readings: list[Gpus | None],
) -> None:
    memory = Memory()
    unseen = dict.fromkeys(map(uuid, range(4)), 3)
    down = dict.fromkeys(map(uuid, range(4)), 0)
    for number, reading in enumerate(readings):
        moment = Observed(
            at=AT + 5 * number, monotonic=5.0 * number, boot_id="b", gpus=reading, fabric="none"
        )
        health, memory = judge(moment, memory)
        unseen = {name: looks + 1 for name, looks in unseen.items()}
        for one in reading.devices if reading else ():
            if one.up:
                unseen[one.uuid] = down[one.uuid] = 0
                continue
            down[one.uuid] += 1
            if down[one.uuid] >= 2:
                assert health.gpus[one.uuid].state in {"unknown", "unhealthy"}
        for name, verdict in health.gpus.items():
            if unseen[name] >= 3:
                assert verdict.state in {"unknown", "unhealthy"}


@given(moments())
def test_what_is_kept_on_the_disk_judges_as_what_was_in_memory(history: list[Observed]) -> None:
    memory = Memory()
    for moment in history:
        before, memory = judge(moment, memory)
        data = encoded(memory, decoded(encoded(memory, _BOOK))[1])
        again, _ = decoded(data)
        assert encoded(again, _BOOK) == data
        # the agent starts anew and sees nothing at all
        blind = Observed(
            at=moment.at + 1,
            monotonic=1.0,
            boot_id=moment.boot_id,
            accelerator=moment.accelerator,
            replicas=moment.replicas,
        )
        after, _ = judge(blind, again)
        kept = {one for one in faults(before) if BY_NAME[one[0]].latched}
        assert kept <= faults(after)


_BOOK = decoded(b'{"schema":1}')[1]


@given(moments(), moments())
def test_losing_sight_of_everything_neither_sets_nor_clears(
    history: list[Observed], later: list[Observed]
) -> None:
    memory = Memory()
    for moment in history:
        before, memory = judge(moment, memory)
    last = history[-1]
    sightless = {"data-stale", "replica-unseen"}
    # what is told without a look at a GPU: of the boot, of the units, of the replicas
    own = {rule.name for rule in RULES if rule.replica is not None or rule.host is not None}
    contact = {"xid-contact"}  # known from before, not seen now
    for moment in later:
        dark = Observed(
            at=moment.at,
            monotonic=moment.monotonic,
            boot_id=last.boot_id or memory.boot_id,
            accelerator=last.accelerator,
            replicas=last.replicas,
            nvml=None,
            xids=None,
            fabric=last.fabric,
        )
        after, memory = judge(dark, memory)
        change = faults(before) ^ faults(after)
        assert {one[0] for one in change} <= sightless | own | contact


SINGLE = {
    name: row
    for name, row in TABLE.items()
    if row.gpu is not None and row.ticks <= 2 and "XID" not in name and "XIDs" not in name
    and row.rule not in {"data-stale", "nvlink-errors"} and len(row.fault) == 1
}  # fmt: skip


@pytest.mark.parametrize("row", SINGLE.values(), ids=SINGLE)
@given(pattern=st.lists(st.booleans(), min_size=1, max_size=30))
def test_a_verdict_changes_only_after_as_many_looks_in_a_row_as_its_rule_says(
    row: Row, pattern: list[bool]
) -> None:
    rule = BY_NAME[row.rule]
    clock = Clock()
    clock.tick()
    well = clock.now.gpus
    looks: list[bool] = []
    held = False
    for broken in pattern:
        clock.do(set_to(gpus=well))
        if broken:
            clock.do(*row.fault)
        looks.append(broken)
        holds = row.rule in {one.rule for one in clock.tick().host.reasons}
        if holds and not held:
            assert all(looks[-rule.looks :])
            assert len(looks) >= rule.looks
        if held and not holds:
            assert not any(looks[-rule.clear_looks :])
        if rule.latched and held:
            assert holds
        held = holds


@given(
    st.lists(
        st.sampled_from(
            [
                *(("xid", number, index) for number in (119, 79, 74) for index in (1, 5)),
                *(("away", problem, index) for problem in PROBLEMS for index in (1, 5)),
                ("reset", 0, 1),
                ("reset", 0, 5),
                ("dark", 0, 0),
            ]
        ),
        max_size=12,
    ),
    st.sampled_from((1, 5)),
)
def test_only_the_replicas_of_a_gpu_are_touched_and_an_ack_only_what_it_names(
    story: list[tuple[str, Any, int]], named: int
) -> None:
    clock = Clock()
    clock.tick()
    for what, how, index in story:
        if what == "xid":
            clock.do(xid(index, how))
        elif what == "away":
            clock.do(away(index, how))
        elif what == "reset":
            clock.do(reset(index))
        else:
            clock.do(of(index))
        health = clock.tick()
        # GPU 1 is of replica a, GPU 5 of c
        assert health.replicas["b"].reasons == health.replicas["d"].reasons == ()
        assert {one.gpu for one in health.replicas["a"].reasons} <= {uuid(1)}
        assert {one.gpu for one in health.replicas["c"].reasons} <= {uuid(5)}
    before = {key: mark for key, mark in clock.memory.marks.items() if mark.holds}
    done = clock.ack("xid-reset", uuid(named))
    gone = set(before) - set(clock.memory.marks)
    assert gone == {(one.rule, one.gpu, None) for one in done}
    assert gone <= {("xid-reset", uuid(named), None)}
