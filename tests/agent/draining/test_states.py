"""A replica's states, told as stories: what happens to it, where it stands, what is to be done."""

from __future__ import annotations

from farrier_agent.draining.events import (
    GateOpened,
    Looked,
    Resumed,
    StopBegan,
    UnitSeen,
    WarmedUp,
    WarmUpFailed,
)
from farrier_agent.draining.record import Asker
from farrier_agent.draining.states import Action

from tests.agent.draining.stories import Story

OPEN, CLOSE = Action.OPEN_GATE, Action.CLOSE_GATE
WARM, WARM_NOT = Action.START_WARM_UP, Action.STOP_WARM_UP
COUNT, COUNT_NOT = Action.START_COUNTING, Action.STOP_COUNTING
ROLLOUT = Asker("rollout 7", "rollout", "vllm 0.33")
NOTICE = Asker("farrier-agent", "notice", "spot: the host goes in 120 s")


# -- runs ------------------------------------------------------------------------------------------


def test_from_its_start_to_its_gate() -> None:
    story = Story().unit("activating", "start-pre")
    assert (story.state, story.since()) == ("starting", [])
    story.unit("active", "running")
    assert (story.state, story.since()) == ("warming", [WARM])
    story.unit("active", "running")
    assert story.since() == []
    story.happens(WarmedUp("run1"))
    assert (story.state, story.record.gate) == ("ready", "opening")
    assert story.since() == [WARM_NOT, OPEN]
    story.ticks()
    assert story.since() == [OPEN], "an opening that failed is tried again"
    story.happens(GateOpened("run1")).ticks()
    assert (story.record.gate, story.since()) == ("open", [])


def test_the_log_says_from_where_to_where_why_and_who() -> None:
    story = Story().serves().drain()
    assert story.last.log == (
        "replica tiny: ready -> draining (settling): new memory (asked by uid 1000)"
    )


def test_warm_up_of_an_earlier_run_opens_nothing() -> None:
    story = Story().runs("run1").runs("run2")
    story.since()
    story.happens(WarmedUp("run1"))
    assert (story.state, story.since()) == ("warming", [])


def test_an_opening_that_another_run_overtook_is_not_confirmed() -> None:
    story = Story().runs().happens(WarmedUp("run1")).runs("run2").happens(GateOpened("run1"))
    assert (story.state, story.record.gate) == ("warming", "closed")


def test_a_warm_up_that_fails_leaves_it_closed_until_asked() -> None:
    story = Story().runs().happens(WarmUpFailed("run1", "no model tiny in /v1/models"))
    assert (story.state, story.record.gate) == ("failed", "closed")
    assert "no model tiny" in story.record.reason
    story.later(60).unit("active", "running")
    assert story.state == "failed"
    story.since()
    story.ready()
    assert (story.state, story.since()) == ("warming", [WARM])


def test_an_engine_that_crashes_and_comes_back_is_warmed_up_again() -> None:
    story = Story().serves()
    story.since()
    story.unit("activating", "auto-restart", result="exit-code")
    assert (story.state, story.since()) == ("failed", [CLOSE])
    assert "exit-code" in story.record.reason
    story.unit("activating", "auto-restart").runs("run2")
    assert (story.state, story.since()) == ("warming", [WARM])


def test_a_crash_that_nobody_saw_is_seen_by_the_new_run() -> None:
    story = Story().serves()
    story.since()
    story.unit("active", "running", "run2")
    assert (story.state, story.since()) == ("warming", [CLOSE, WARM])


def test_an_answer_that_is_older_than_the_run_changes_nothing() -> None:
    story = Story().serves("run1").later(10).runs("run2")
    old = UnitSeen("active", "running", "run1", story.now.boot - 3)
    assert story.happens(old).record.invocation_id == "run2"


def test_an_upgrade_from_an_agent_without_records_touches_no_gate() -> None:
    story = Story(gate_open=True).happens(Resumed()).unit("active", "running")
    assert (story.state, story.since()) == ("ready", [])
    story = Story().happens(Resumed()).unit("active", "running")
    assert (story.state, story.since()) == ("warming", [CLOSE, WARM])


def test_after_a_boot_nothing_is_open_and_nothing_runs() -> None:
    story = Story().serves().boots().ticks()
    assert (story.state, story.record.gate, story.record.invocation_id) == (
        "stopped",
        "closed",
        None,
    )
    assert story.serves("run2").state == "ready"


# -- drains ----------------------------------------------------------------------------------------


def test_a_drain_settles_closes_counts_and_ends() -> None:
    story = Story().serves()
    story.since()
    story.drain(settle=3)
    assert (story.state, story.the_drain.closed, story.since()) == ("draining", False, [])
    story.later(2.9).ticks()
    assert (story.record.gate, story.since()) == ("open", [])
    story.later(0.1).ticks()
    assert (story.record.gate, story.since()) == ("closed", [CLOSE, COUNT])
    story.looks(5, 2, 0, 0)
    assert (story.state, story.the_drain.in_flight_at_close) == ("draining", 5)
    story.looks(0)
    assert (story.state, story.since()) == ("drained", [COUNT_NOT])
    assert (story.the_drain.forced, story.the_drain.cut) == (False, None)


def test_one_request_more_begins_the_looks_anew() -> None:
    story = Story().serves().drain(settle=0).looks(0, 0, 1, 0, 0)
    assert story.state == "draining"
    assert story.looks(0).state == "drained"


def test_what_could_not_be_counted_is_not_nothing() -> None:
    story = Story().serves().drain(settle=0).looks(0, 0, None, 0, 0)
    assert (story.state, story.the_drain.quiet) == ("draining", 2)


def test_looks_without_a_second_between_them_are_one() -> None:
    story = Story().serves().drain(settle=0).looks(*[0] * 10, apart=0.2)
    assert story.state == "draining"
    assert story.the_drain.quiet == 2


def test_a_look_while_requests_are_still_accepted_says_nothing() -> None:
    story = Story().serves().drain(settle=30).looks(0, 0, 0, 0)
    assert (story.state, story.the_drain.quiet) == ("draining", 0)


def test_two_drains_are_one() -> None:
    story = Story().serves().drain(settle=0, seconds=900).looks(3)
    begun = story.the_drain.begun
    story.since()
    story.drain(settle=3, seconds=900, asker=ROLLOUT)
    assert (story.the_drain.begun, story.the_drain.quiet, story.since()) == (begun, 0, [])
    assert [one.by for one in story.the_drain.askers] == ["uid 1000", "rollout 7"]
    story.drain(settle=3, seconds=900, asker=ROLLOUT)
    assert len(story.the_drain.askers) == 2


def test_a_notice_is_not_held_up_by_a_drain_that_takes_its_time() -> None:
    story = Story().serves().drain(settle=30, seconds=900, policy="extend")
    story.drain(settle=0, seconds=110, policy="force", asker=NOTICE)
    assert story.record.gate == "closed"
    story.looks(4).later(110).ticks()
    assert (story.state, story.the_drain.cut) == ("drained", 4)


def test_one_who_would_take_it_back_does_not_overrule_one_who_would_not() -> None:
    story = Story().serves().drain(settle=0, seconds=100, policy="extend", asker=NOTICE)
    story.drain(settle=0, seconds=10, policy="abort").looks(1).later(20).ticks()
    assert story.state == "draining"


def test_extend_waits_on() -> None:
    story = Story().serves().drain(settle=0, seconds=100).looks(2).later(100).ticks()
    assert (story.state, story.the_drain.extensions) == ("draining", 1)
    assert story.last.log == "replica tiny: drain extended, 2 requests in flight"
    story.later(1000).ticks()
    assert story.the_drain.deadline > story.now.boot
    assert story.looks(0, 0, 0).state == "drained"


def test_abort_takes_the_drain_back() -> None:
    story = Story().serves().drain(settle=0, seconds=10, policy="abort").looks(2)
    story.since()
    story.later(10).ticks()
    assert (story.state, story.record.drain, story.since()) == ("ready", None, [COUNT_NOT, OPEN])


def test_one_that_was_not_warm_is_not_served_because_its_drain_was_taken_back() -> None:
    for story in (Story().runs(), Story().runs().happens(WarmUpFailed("run1", "too slow"))):
        story.drain(settle=0, seconds=10, policy="abort").looks(1)
        story.since()
        story.later(10).ticks()
        assert (story.state, story.record.drain, story.since()) == (
            "warming",
            None,
            [COUNT_NOT, WARM],
        )
    story = Story().runs().drain(settle=0)
    story.since()
    assert story.ready().since() == [COUNT_NOT, WARM]


def test_force_says_what_is_cut_and_that_number_follows_the_last_look() -> None:
    story = Story().serves().drain(settle=0, seconds=10, policy="force").looks(7).later(10).ticks()
    assert (story.state, story.the_drain.forced, story.the_drain.cut) == ("drained", True, 7)
    assert (story.last.level, "7 requests" in story.record.reason) == ("WARNING", True)
    story.stop()
    assert story.state == "drained", "who forced does not wait again"
    story.happens(Looked(5)).unit("deactivating", "stop-sigterm")
    assert story.record.last_drain is not None
    assert story.record.last_drain.cut == 5


def test_force_without_a_count_does_not_say_zero() -> None:
    story = Story().serves().drain(settle=0, seconds=1, policy="force").looks(None).later(1).ticks()
    assert (story.state, story.the_drain.forced, story.the_drain.cut) == ("drained", True, None)


def test_ready_takes_a_drain_back() -> None:
    story = Story().serves().drain(settle=3)
    story.since()
    story.ready()
    assert (story.state, story.record.gate, story.since()) == ("ready", "open", [])
    story.drain(settle=0).looks(3)
    story.since()
    story.ready()
    assert (story.state, story.since()) == ("ready", [COUNT_NOT, OPEN])


def test_ready_after_a_drain_warms_up_first() -> None:
    story = Story().serves().drained()
    story.since()
    story.ready()
    assert (story.state, story.since()) == ("warming", [WARM])
    assert story.happens(WarmedUp("run1")).since() == [WARM_NOT, OPEN]


def test_ready_of_a_ready_replica_opens_a_gate_that_was_closed_by_hand() -> None:
    story = Story().serves()
    story.since()
    assert story.ready().since() == [OPEN]


def test_ready_of_an_engine_that_does_not_run_is_refused() -> None:
    story = Story().ready()
    assert story.last.refused == "its engine does not run (not seen before); next: start its unit"
    story.serves().unit("failed", "failed", result="exit-code").ready()
    assert (story.state, story.last.refused is None) == ("failed", False)


def test_a_drain_of_a_stopped_replica_is_nothing() -> None:
    story = Story().drain()
    assert (story.state, story.record.drain, story.since()) == ("stopped", None, [])


def test_a_replica_that_was_to_be_drained_while_it_started_is_not_opened() -> None:
    story = Story().unit("activating", "start-pre").drain()
    assert (story.state, story.record.held) == ("starting", True)
    story.unit("active", "running").happens(WarmedUp("run1"))
    assert (story.state, story.record.gate) == ("drained", "closed")
    assert OPEN not in story.done


def test_a_drain_of_one_that_is_not_ready_needs_no_warm_up_first() -> None:
    warming = Story().runs()
    failed = Story().runs().happens(WarmUpFailed("run1", "too slow"))
    for story in (warming, failed):
        story.drain()
        assert (story.state, story.record.counting) == ("draining", True)
        assert story.looks(0, 0, 0).state == "drained"
    assert WARM_NOT in warming.done


def test_a_gate_that_is_being_opened_is_closed_by_a_drain_at_once() -> None:
    story = Story().runs().happens(WarmedUp("run1"))
    story.since()
    story.drain(settle=3)
    assert (story.record.gate, story.since()) == ("closed", [CLOSE, COUNT])
    story.happens(GateOpened("run1")).ticks()
    assert (story.record.gate, story.since()) == ("closed", [])


# -- crashes and stops -----------------------------------------------------------------------------


def test_a_drained_engine_that_crashes_comes_back_closed() -> None:
    story = Story().serves().drained().unit("activating", "auto-restart", result="signal")
    assert (story.state, story.record.held) == ("failed", True)
    story.runs("run2").happens(WarmedUp("run2"))
    assert (story.state, story.record.gate) == ("drained", "closed")
    assert OPEN not in story.done[-2:]
    assert story.ready().happens(WarmedUp("run2")).state == "ready"


def test_an_engine_that_dies_in_a_drain_loses_what_was_in_flight() -> None:
    story = Story().serves().drain(settle=0).looks(4).unit("failed", "failed", result="core-dump")
    assert (story.state, story.record.last_drain and story.record.last_drain.cut) == ("failed", 4)


def test_a_drain_outlives_a_power_cut_and_an_orderly_reboot_ends_it() -> None:
    story = Story().serves().drained().boots().runs("run2").happens(WarmedUp("run2"))
    assert story.state == "drained"
    story = Story().serves().drained().stop().boots().serves("run2")
    assert story.state == "ready"


def test_systemd_stops_a_ready_replica() -> None:
    story = Story().serves()
    story.since()
    story.stop()
    assert (story.state, story.since()) == ("draining", [CLOSE, COUNT])
    story.unit("deactivating", "stop").looks(1, 0, 0, 0)
    assert story.state == "drained"
    story.unit("deactivating", "stop-sigterm").unit("inactive", "dead")
    assert (story.state, story.record.held, story.record.stopping) == ("stopped", False, False)
    assert story.record.last_drain is not None
    assert (story.record.last_drain.forced, story.record.last_drain.cut) == (False, None)
    assert story.serves("run2").state == "ready"


def test_a_stop_does_not_take_the_record_of_another_run_for_its_own() -> None:
    story = Story().serves().drained().stop(cap=30).later(3600)
    story.happens(StopBegan("run2", cap=1000))
    assert (story.state, story.record.counting) == ("draining", True)
    assert story.looks(1).state == "draining", "the cap of the other stop is over, not this one's"
    assert story.looks(0, 0, 0).state == "drained"


def test_a_stop_in_any_state_counts_behind_a_closed_gate() -> None:
    stories = {
        "warming": Story().runs(),
        "failed": Story().runs().happens(WarmUpFailed("run1", "too slow")),
        "settling": Story().serves().drain(settle=60),
        "counting": Story().serves().drain(settle=0),
        "held": Story().unit("activating", "start-pre").drain().unit("active", "running"),
    }
    for state, story in stories.items():
        story.since()
        story.stop()
        assert story.record.counting, state
        assert CLOSE in story.since(), state
        assert story.looks(0, 0, 0).state == "drained", state


def test_a_stop_of_a_drained_replica_ends_at_once() -> None:
    story = Story().serves().drained()
    story.since()
    story.stop()
    assert (story.state, story.since()) == ("drained", [CLOSE])
    assert story.happens(Looked(0)).state == "drained"


def test_unless_somebody_opened_its_gate_by_hand() -> None:
    story = Story().serves().drained().stop()
    story.since()
    story.happens(Looked(2))
    assert story.since() == [CLOSE, COUNT]
    assert (story.state, story.record.counting) == ("draining", True)
    assert story.looks(0, 0, 0).state == "drained"


def test_nothing_takes_a_stop_back() -> None:
    story = Story().serves().drain(settle=0, seconds=5, policy="abort").looks(3).stop()
    story.ready()
    assert story.state == "draining"
    assert story.last.refused is not None
    assert "systemctl start" in story.last.refused
    story.drain(policy="abort")
    assert story.last.refused is not None
    story.later(6).ticks()
    assert story.state == "draining", "the abort of before must not reopen it"


def test_a_stop_waits_no_longer_than_its_cap() -> None:
    story = Story().serves().stop(seconds=10, cap=30).looks(2).later(20).ticks()
    assert story.state == "draining"
    story.stop(seconds=10, cap=30).later(9).ticks()
    assert (story.state, story.the_drain.cut) == ("drained", 2), "a second stop moved the cap"


def test_the_program_run_by_hand_does_not_leave_a_stop_for_ever() -> None:
    story = Story().serves().stop().unit("active", "running")
    assert story.record.stopping, "it may have been read before the stop"
    story.later(6).unit("active", "running")
    assert (story.record.stopping, story.state) == (False, "draining")
    assert story.ready().state == "ready"


def test_whoever_takes_over_does_what_is_left_to_do() -> None:
    warming = Story().runs()
    opening = Story().runs().happens(WarmedUp("run1"))
    counting = Story().serves().drain(settle=0).looks(0, 0)
    for story, due in (
        (Story().serves(), []),
        (warming, [CLOSE, WARM]),
        (opening, [OPEN]),
        (Story().serves().drain(settle=30), []),
        (counting, [CLOSE, COUNT]),
        (Story().serves().drained(), [CLOSE]),
    ):
        story.since()
        assert story.happens(Resumed()).since() == due
    assert counting.the_drain.quiet == 0, "the gap says nothing about what was in flight"
