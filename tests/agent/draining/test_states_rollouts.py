"""What rollouts drain, as stories: it outlives stops, crashes and boots, and opens for one word."""

from __future__ import annotations

import pytest
from farrier_agent.draining.events import ReadyAsked, WarmedUp
from farrier_agent.draining.record import Asker

from tests.agent.draining.stories import ANNA, Story

ROLLOUT = Asker("alice@laptop", "rollout", "held by rollout r-1: vllm 0.33", "r-1")
OTHER = Asker("bob@desk", "rollout", "held by rollout r-2: a driver", "r-2")
FOR_ALL = Asker("bob@desk", "rollout", "well")
VERDICT = Asker("farrier-agent (GPU health)", "verdict", "gpu-lost")
NOTICE = Asker("aws (notice)", "notice", "spot")


def drained(*askers: Asker) -> Story:
    story = Story().serves()
    for asker in askers:
        story.drain(settle=0, asker=asker)
    return story.looks(0, 0, 0)


def stopped_in_order(story: Story) -> Story:
    return story.stop().unit("deactivating", "stop-sigterm").unit("inactive", "dead")


def warm_again(story: Story) -> Story:
    story.unit("activating", "start-pre", "run2").unit("active", "running", "run2")
    return story.happens(WarmedUp("run2"))


def askers(story: Story) -> tuple[Asker, ...]:
    return story.record.drain.askers if story.record.drain else ()


def test_it_outlives_the_stop_that_it_was_for() -> None:
    story = warm_again(stopped_in_order(drained(ROLLOUT)))
    assert (story.state, story.record.gate) == ("drained", "closed")
    assert story.record.reason == "warm, and kept closed: held by rollout r-1: vllm 0.33"
    assert askers(story) == (ROLLOUT,)
    story.ready(FOR_ALL).happens(WarmedUp("run2"))
    assert (story.state, story.record.gate) == ("ready", "opening")


def test_it_outlives_boots_orderly_ones_and_others() -> None:
    for story in (stopped_in_order(drained(ROLLOUT)), drained(ROLLOUT)):
        warm_again(story.boots())
        assert (story.state, askers(story)) == ("drained", (ROLLOUT,))


def test_it_outlives_a_crash() -> None:
    story = drained(ROLLOUT).unit("activating", "auto-restart", result="exit-code")
    assert warm_again(story).state == "drained"


@pytest.mark.parametrize(
    ("others", "kept"),
    [((ANNA,), (ANNA, ROLLOUT)), ((VERDICT,), (ROLLOUT,)), ((NOTICE,), (ROLLOUT,))],
)
def test_with_it_a_persons_drain_outlives_the_stop(
    others: tuple[Asker, ...], kept: tuple[Asker, ...]
) -> None:
    assert askers(stopped_in_order(drained(*others, ROLLOUT))) == kept
    # alone it ends with the stop, as ever
    assert askers(stopped_in_order(drained(*others))) == ()


@pytest.mark.parametrize("other", [ANNA, VERDICT, NOTICE])
def test_a_rollout_opens_nothing_that_others_want_closed(other: Asker) -> None:
    story = drained(other, ROLLOUT).ready(FOR_ALL)
    assert (story.state, askers(story)) == ("drained", (other,))
    assert story.last.log is not None
    assert f"stays so for {other.by}: {other.reason}" in story.last.log
    story.ready(ANNA)
    assert (story.state, askers(story)) == ("warming", ())


def test_of_two_rollouts_one_may_go() -> None:
    story = drained(ROLLOUT, OTHER)
    gone = Asker("farrier-agent (rollout)", "rollout", "no lease", "r-1")
    story.ready(gone)
    assert (story.state, askers(story)) == ("drained", (OTHER,))
    story.ready(gone)
    assert askers(story) == (OTHER,)
    story.ready(FOR_ALL)
    assert story.state == "warming"


def test_it_does_not_crowd_others_out() -> None:
    story = drained(ANNA)
    for number in range(40):
        story.drain(asker=Asker("alice", "rollout", f"step {number}", "r-1"))
    assert [one.by for one in askers(story)] == [ANNA.by, "alice"]


def test_ones_own_drain_leaves_that_of_others() -> None:
    story = drained(ANNA, ROLLOUT).happens(ReadyAsked(ANNA, own=True))
    assert (story.state, askers(story)) == ("drained", (ROLLOUT,))
    story.happens(ReadyAsked(ROLLOUT, own=True))
    assert story.state == "warming"


def test_a_stopped_one_is_held_for_when_it_is_started() -> None:
    story = Story().unit("inactive", "dead", None).drain(asker=ANNA)
    assert askers(story) == (), "nothing runs, and nothing is to be kept"
    story.drain(asker=ROLLOUT)
    assert (story.state, askers(story)) == ("stopped", (ROLLOUT,))
    story.unit("activating", "start-pre").unit("active", "running").happens(WarmedUp("run1"))
    assert story.state == "drained"


def test_systemd_stops_it_whatever_a_rollout_says() -> None:
    story = drained(ROLLOUT).stop().ready(FOR_ALL)
    assert story.last.refused is not None
    assert askers(story)[0] == ROLLOUT
