"""Whatever happens to a replica in whatever order: what must never be, never is."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import msgspec
from farrier_agent.draining.drains import APART, LOOKS
from farrier_agent.draining.events import (
    DrainAsked,
    Event,
    GateOpened,
    Looked,
    ReadyAsked,
    Resumed,
    StopBegan,
    Ticked,
    UnitSeen,
    WarmedUp,
    WarmUpFailed,
)
from farrier_agent.draining.record import Asker, Now, Phase, Record, initial
from farrier_agent.draining.states import Action, transition
from hypothesis import event as event_of
from hypothesis import given, settings
from hypothesis import strategies as st

RUNS = st.sampled_from(["run1", "run2", None])
POLICIES = st.sampled_from(["extend", "abort", "force"])
SECONDS = st.floats(0, 30)
ASKERS = st.builds(
    Asker,
    by=st.sampled_from(["uid 0", "rollout 7"]),
    source=st.sampled_from(["person", "rollout", "notice"]),
    reason=st.just("because"),
)
UNITS = st.builds(
    UnitSeen,
    active_state=st.sampled_from(
        ["active", "reloading", "activating", "deactivating", "failed", "inactive", "maintenance"]
    ),
    sub_state=st.sampled_from(["running", "auto-restart", "start-pre", "stop", "stop-sigterm"]),
    invocation_id=RUNS,
    read_at=st.floats(0, 9),  # its age here, for the clock is not known yet
)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    UNITS,
    st.builds(WarmedUp, RUNS),
    st.builds(WarmUpFailed, RUNS, st.just("slow")),
    st.builds(GateOpened, RUNS),
    st.builds(DrainAsked, ASKERS, SECONDS, SECONDS, POLICIES),
    st.builds(ReadyAsked, ASKERS),
    st.builds(StopBegan, RUNS, SECONDS, SECONDS, POLICIES, SECONDS),
    st.builds(Looked, st.sampled_from([0, 0, 0, 1, None])),
    st.just(Ticked()),
    st.just(Resumed()),
)
Step = tuple[float, bool, Event]
STEP = st.tuples(st.sampled_from([0.0, 0.3, 1.0, 7.0]), st.just(False), EVENTS)
BOOT = st.tuples(st.just(60.0), st.just(True), EVENTS)
QUIET = st.lists(
    st.tuples(st.sampled_from([0.4, 1.0, 1.0]), st.just(False), st.just(Looked(0))),
    min_size=3,
    max_size=5,
)
DRAIN = st.builds(DrainAsked, ASKERS, st.just(0.0), SECONDS, POLICIES)
DRAINED = st.builds(lambda drain, looks: [(0.0, False, drain), *looks], DRAIN, QUIET)
ONE = STEP.map(lambda step: [step])
PARTS = st.lists(
    st.one_of(ONE, ONE, ONE, QUIET, DRAINED, BOOT.map(lambda step: [step])), max_size=30
)


def check(record: Record) -> None:
    accepting = record.phase is Phase.READY or (
        record.phase is Phase.DRAINING and record.drain is not None and not record.drain.closed
    )
    assert accepting or record.gate == "closed"
    assert record.phase is not Phase.READY or not (record.stopping or record.held)
    assert record.phase not in {Phase.DRAINING, Phase.DRAINED} or record.drain
    assert msgspec.json.decode(msgspec.json.encode(record), type=Record) == record


@settings(max_examples=300, deadline=None)
@given(PARTS)
def test_what_must_never_be(parts: list[list[Step]]) -> None:
    now = Now("boot1", 1000.0, 0.0)
    record = initial("tiny", now, gate_open=False)
    begun = UnitSeen("active", "running", "run1", now.boot)
    for first in (begun, WarmedUp("run1"), GateOpened("run1")):
        record = transition(record, first, now).record
    warm: set[str | None] = {"run1"}
    zeros: list[float] = []
    ends: set[str] = set()
    for seconds, boots, told in chain.from_iterable(parts):
        boot_id = now.boot_id + "+" if boots else now.boot_id
        now = Now(boot_id, now.boot + seconds, now.epoch + seconds)
        event = told
        if isinstance(told, UnitSeen):
            event = replace(told, read_at=now.boot - told.read_at)
        old, step = record, transition(record, event, now)
        record = step.record
        check(record)
        if isinstance(event, WarmedUp) and old.phase is Phase.WARMING:
            warm |= {event.invocation_id} if event.invocation_id == old.invocation_id else set()
        if Action.OPEN_GATE in step.actions:
            assert record.invocation_id in warm
            assert record.phase is Phase.READY
        if record.phase is Phase.READY and old.phase in {Phase.DRAINING, Phase.DRAINED}:
            assert not old.stopping
        assert (record.counting or not old.counting) == (Action.STOP_COUNTING not in step.actions)
        # drained means: seen to be so, by looks that are a second apart
        if not old.counting or (isinstance(event, Looked) and event.in_flight != 0):
            zeros = []
        elif isinstance(event, Looked):
            zeros.append(now.boot)
        became = record.phase is Phase.DRAINED and old.phase is Phase.DRAINING
        if became and record.drain and not record.drain.forced:
            assert len(zeros) >= LOOKS
            assert zeros[-1] - zeros[0] >= (LOOKS - 1) * (APART - 0.1)
            ends.add("drained")
        if became and record.drain and record.drain.forced:
            ends.add("forced")
    event_of(", ".join(sorted(ends)) or "neither")
