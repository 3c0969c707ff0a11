"""Leases and the mark *acting*, as values: who is let in, who is fenced off, what returns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from farrier_agent.control.errors import RefusedError
from farrier_agent.draining.record import Now
from farrier_agent.rollout import lease as rules
from farrier_agent.rollout.lease import State
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

NOW = Now("boot-1", 1000.0, 1_795_000_000.0)


def later(seconds: float, now: Now = NOW) -> Now:
    return Now(now.boot_id, now.boot + seconds, now.epoch + seconds)


def lent(rollout: str = "r-1", state: State | None = None, **fields: Any) -> State:
    known: dict[str, Any] = {"holder": f"{rollout}@laptop", "seconds": 60.0, "now": NOW}
    return rules.lend(state or State(), rollout, **known | fields)


def test_a_lease_is_over_with_its_time_and_with_its_boot() -> None:
    state = lent()
    assert rules.alive(state, later(59.9)) == state.lease
    assert rules.alive(state, later(60)) is None
    assert rules.alive(state, replace(NOW, boot_id="boot-2", boot=10.0)) is None
    # a clock that somebody sets changes nothing
    assert rules.alive(state, replace(NOW, epoch=NOW.epoch + 9999)) == state.lease
    renewed = rules.renewed(state, state.token, None, later(50))
    assert rules.alive(renewed, later(109)) is not None
    assert rules.alive(rules.renewed(state, state.token, 5, NOW), later(6)) is None


def test_tokens_grow_also_where_everything_was_lost() -> None:
    first = lent()
    assert first.token == int(NOW.epoch)
    second = lent(state=first)
    assert second.token == first.token + 1
    assert lent(now=later(2)).token > second.token


def test_only_the_present_token_counts() -> None:
    state = lent(state=lent())
    assert rules.fenced(state, state.token, NOW) == state.lease
    for token in (1, state.token - 1, state.token + 1):
        with pytest.raises(RefusedError, match="r-1@laptop has the lease"):
            rules.fenced(state, token, NOW)
    with pytest.raises(RefusedError, match=r"ran out at .*the host takes itself back"):
        rules.fenced(state, state.token, later(61))
    acting = rules.begun(state, state.token, "reboot", NOW)
    with pytest.raises(RefusedError, match=r"ran out at .*stays as it was left \(acting: reboot\)"):
        rules.fenced(acting, state.token, later(61))


def test_who_may_take_it() -> None:
    state = lent()
    with pytest.raises(RefusedError, match="r-1@laptop has the lease of this host for rollout r-1"):
        lent("r-2", state, takeover=True)
    assert lent("r-2", state, now=later(61)).lease is not None
    acting = rules.begun(state, state.token, "converge", NOW)
    assert lent("r-1", acting, now=later(61)).acting == acting.acting
    with pytest.raises(RefusedError, match="left this host half done") as caught:
        lent("r-2", acting, now=later(61))
    assert caught.value.next == "farrier rollout resume r-1"
    over = lent("r-2", acting, now=later(61), takeover=True)
    assert over.acting is not None
    assert (over.acting.rollout, over.acting.deed) == ("r-2", "converge")


def test_what_returns_by_itself() -> None:
    state = lent()
    assert not rules.returns(state, "r-1", NOW)
    assert rules.returns(state, "r-0", NOW), "of one that has no lease any more"
    assert rules.returns(state, "r-1", later(61))
    acting = rules.begun(state, state.token, "restart", NOW)
    assert not rules.returns(acting, "r-1", later(61))
    assert not rules.returns(acting, "r-0", later(61))
    assert not rules.returns(rules.lost(7, NOW), "r-1", NOW)


def test_done_ends_the_mark_and_a_person_may_say_it_when_nobody_has_the_lease() -> None:
    acting = rules.begun(lent(), lent().token, "run", NOW)
    assert rules.done(acting, acting.token, NOW).acting is None
    with pytest.raises(RefusedError, match="it is for that one to say"):
        rules.done(acting, None, NOW)
    assert rules.done(acting, None, later(61)).acting is None


def test_the_agents_own_restarts_leave_the_mark_of_others_alone() -> None:
    state = lent()
    token = state.token
    two = rules.alone(rules.alone(state, token, "a", NOW), token, "b", NOW)
    one = rules.alone_ended(two, "a")
    assert one.acting is not None
    assert rules.alone_ended(one, "b").acting is None
    marked = rules.alone(rules.begun(state, token, "converge", NOW), token, "a", NOW)
    assert rules.alone_ended(marked, "a").acting is not None
    assert rules.alone_ended(marked, "x") == marked


def test_a_release_may_be_asked_for_twice() -> None:
    state = lent()
    released = rules.released(state, state.token, NOW)
    assert released.lease is None
    assert rules.released(released, state.token, NOW) == released
    with pytest.raises(RefusedError, match="was released at"):
        rules.fenced(released, state.token, NOW)


class Hosts(RuleBasedStateMachine):
    """Any order of rollouts, sleep, reboots and losses of the file."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.state = State()
        self.tokens: list[int] = []
        self.holder: tuple[str, int] | None = None

    def _try(self, change: Any) -> bool:
        try:
            self.state = change()
        except RefusedError:
            return False
        return True

    @rule(name=st.sampled_from(["r-1", "r-2"]), takeover=st.booleans(), seconds=st.floats(1, 100))
    def take(self, name: str, seconds: float, takeover: bool) -> None:
        before, other = self.state, rules.alive(self.state, self.now)
        done = self._try(
            lambda: rules.lend(self.state, name, f"{name}@x", seconds, self.now, takeover=takeover)
        )
        if not done:
            assert takeover is False or (other is not None and other.rollout != name)
            return
        assert other is None or other.rollout == name
        assert before.acting is None or before.acting.rollout == name or takeover
        assert all(self.state.token > token for token in self.tokens)
        self.tokens.append(self.state.token)

    @rule(seconds=st.floats(0.1, 200))
    def sleep(self, seconds: float) -> None:
        self.now = later(seconds, self.now)

    @rule()
    def reboot(self) -> None:
        self.now = Now(self.now.boot_id + "'", 1.0, self.now.epoch + 60)
        assert rules.alive(self.state, self.now) is None

    @rule()
    def lose(self) -> None:
        self.state = rules.lost(self.state.token, self.now)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), deed=st.sampled_from(["restart", "run", "done", "renew", "release"]))
    def ask(self, data: st.DataObject, deed: Any) -> None:
        token = data.draw(st.sampled_from(self.tokens))
        before, lease = self.state, rules.alive(self.state, self.now)
        changes: dict[str, Any] = {
            "done": lambda: rules.done(before, token, self.now),
            "renew": lambda: rules.renewed(before, token, None, self.now),
            "release": lambda: rules.released(before, token, self.now),
        }
        change = changes.get(deed, lambda: rules.begun(before, token, deed, self.now))
        done = self._try(change)
        if self.state != before:
            assert done
            assert lease is not None
            assert lease.token == token == max(self.tokens)

    @invariant()
    def lapsing_changes_nothing_that_counts(self) -> None:
        lapsed = rules.lapsed(self.state, self.now)
        assert rules.alive(lapsed, self.now) == rules.alive(self.state, self.now) == lapsed.lease
        assert (lapsed.acting, lapsed.token) == (self.state.acting, self.state.token)


TestHosts = Hosts.TestCase
