"""Where a rollout goes on: from a ledger and what hosts say. No host."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farrier.rollout.ledger import HostRecord, ReplicaRecord, StepRecord
from farrier.rollout.one_host import replica_record
from farrier.rollout.plan import LETS_GO, RESTARTS, Kind
from farrier.rollout.resuming import go_on, renewed, still_to_restart, take_back
from farrier.rollout.seen import HostSeen
from farrier.rollout.steps import SEQUENCES, Step, after
from tests.unit.test_rollout_plan import replica

OLD, NEW = "a" * 32, "b" * 32
KINDS: tuple[Kind, ...] = get_args(Kind)
ACTING_ONCE = [one for one in KINDS if one not in LETS_GO]
"""Those whose act is never repeated; of a driver only the reboot is like that."""


def record(*steps: str, **more: Any) -> HostRecord:
    """A host whose *steps* were done; a last one with ``?`` has begun, and no more is known."""
    return HostRecord(
        host="gpu01",
        batch=0,
        boot_before="boot 1",
        state="running",
        replicas=[ReplicaRecord(name="tiny", model="tiny", invocation_before=OLD)],
        steps=[
            StepRecord(
                step=one.rstrip("?"), began_at=0, outcome=None if one.endswith("?") else "done"
            )
            for one in steps
        ],
        **more,
    )


def seen(run: str = OLD, boot: str = "boot 1", **more: Any) -> HostSeen:
    one = replica(invocation=run, **{k: v for k, v in more.items() if k != "acting"})
    return HostSeen(host="gpu01", boot_id=boot, replicas=(one,), acting=more.get("acting"))


@pytest.mark.parametrize(
    ("kind", "steps", "now", "step"),
    [
        ("restart", (), seen(), Step.HOOK_BEFORE),
        ("restart", ("hook-before?",), seen(), Step.HOOK_BEFORE),
        ("restart", ("drain?",), seen(), Step.DRAIN),
        ("restart", ("hook-before", "drain"), seen(), Step.DRAIN),
        # killed before systemd was asked
        ("restart", ("drain", "act?"), seen(), Step.DRAIN),
        # killed after it: never restarted twice
        ("restart", ("drain", "act?"), seen(NEW), Step.WARM),
        ("restart", ("drain", "act", "warm?"), seen(NEW), Step.WARM),
        ("restart", ("drain", "act", "warm", "check"), seen(NEW), Step.READY),
        ("restart", ("drain", "act", "warm", "check", "ready?"), seen(NEW), Step.READY),
        (
            "restart",
            ("drain", "act", "warm", "check", "ready", "soak"),
            seen(NEW),
            Step.SETTLE,
        ),
        (
            "restart",
            ("drain", "act", "warm", "check", "ready", "settle", "hook-after?"),
            seen(NEW),
            Step.HOOK_AFTER,
        ),
        ("converge", ("converge?",), seen(), Step.CONVERGE),
        ("converge", ("converge", "drain?"), seen(), Step.DRAIN),
        ("reboot", ("drain", "act?"), seen(), Step.DRAIN),
        ("reboot", ("drain", "act?"), seen(boot="boot 2"), Step.BACK),
        ("reboot", ("drain", "act", "back?"), seen(boot="boot 2"), Step.BACK),
        ("reboot", ("drain", "act", "back"), seen(boot="boot 2"), Step.WARM),
        ("rollback", (), seen(), Step.HOOK_BEFORE),
        ("rollback", ("put-back?",), seen(), Step.PUT_BACK),
        ("rollback", ("put-back", "drain?"), seen(), Step.DRAIN),
        ("rollback", ("put-back", "drain", "act?"), seen(NEW), Step.WARM),
        ("driver", (), seen(), Step.HOOK_BEFORE),
        ("driver", ("hook-before", "plan?"), seen(), Step.PLAN),
        ("driver", ("plan", "drain?"), seen(), Step.DRAIN),
        # measured or not, the agent may have taken it back
        ("driver", ("plan", "drain", "measure?"), seen(), Step.DRAIN),
        # killed before it was marked, and after it
        ("driver", ("plan", "drain", "measure", "let-go?"), seen(), Step.DRAIN),
        ("driver", ("plan", "drain", "measure", "let-go?"), seen(acting="driver"), Step.LET_GO),
        ("driver", ("plan", "drain", "let-go", "install?"), seen(acting="driver"), Step.LET_GO),
        # no reboot is needed
        ("driver", ("plan", "drain", "let-go", "install"), seen(acting="driver"), Step.TAKE_UP),
        ("driver", ("plan", "let-go", "install", "take-up", "warm?"), seen(NEW), Step.TAKE_UP),
        ("driver", ("plan", "let-go", "install", "warm", "check"), seen(NEW), Step.READY),
        ("driver", ("plan", "let-go", "install", "check", "ready", "soak"), seen(NEW), Step.SETTLE),
        ("driver", ("plan", "let-go", "install", "check", "settle"), seen(NEW), Step.HOOK_AFTER),
        ("driver-back", (), seen(), Step.DRAIN),
        ("driver-back", ("drain?",), seen(acting="driver"), Step.DRAIN),
        ("driver-back", ("drain", "let-go", "install?"), seen(acting="driver"), Step.LET_GO),
        ("gpu-reset", ("drain", "measure", "let-go", "act?"), seen(acting="gpu"), Step.LET_GO),
        ("gpu-reset", ("drain", "measure", "let-go", "act"), seen(acting="gpu"), Step.TAKE_UP),
        ("run", ("drain",), seen(), Step.DRAIN),
        ("run", ("drain", "act"), seen(), Step.WARM),
    ],
)
def test_it_goes_on_where_it_was(
    kind: Kind, steps: tuple[str, ...], now: HostSeen, step: Step
) -> None:
    found = go_on(kind, record(*steps), now)
    assert (found.step, found.stop) == (step, None)


def test_a_command_whose_end_is_not_known_is_not_run_again_without_a_word() -> None:
    begun = record("drain", "act?")
    found = go_on("run", begun, seen())
    assert found.step is None
    assert "ran to its end" in (found.stop or "")
    assert go_on("run", begun, seen(), run_again=True).step is Step.DRAIN


def test_a_replica_that_runs_anew_is_not_restarted() -> None:
    two = record("drain", "act?")
    two.replicas.append(ReplicaRecord(name="embed", model="embed", invocation_before=OLD))
    now = HostSeen(
        host="gpu01",
        replicas=(replica(invocation=NEW), replica("embed", invocation=OLD)),
    )
    assert still_to_restart(two, now) == ("embed",)


@given(
    kind=st.sampled_from(ACTING_ONCE),
    killed=st.integers(0, 10),
    known=st.booleans(),
    hook=st.booleans(),
)
def test_killed_anywhere_nothing_is_done_to_a_host_twice(
    kind: Kind, killed: int, known: bool, hook: bool
) -> None:
    """Walk through the steps, be killed at one, go on: the act happens once on the host."""
    sequence = [one for one in SEQUENCES[kind] if hook or "hook" not in one.value]
    killed = min(killed, len(sequence) - 1)
    acts = 0
    done = []
    for one in sequence[:killed]:
        done.append(one.value)
        acts += one is Step.ACT
    last = sequence[killed]
    # the step was done on the host, and the ledger may not know it
    acts += last is Step.ACT
    left = record(*done, last.value if known else f"{last.value}?")
    run = NEW if acts and kind in RESTARTS else OLD
    boot = "boot 2" if acts and kind == "reboot" else "boot 1"
    found = go_on(kind, left, seen(run, boot))
    if found.stop:
        assert kind == "run"
        assert last is Step.ACT
        assert not known
        return
    step = found.step
    while step is not None:
        acts += step is Step.ACT
        step = after(kind, step)
    assert acts == 1


@given(
    kind=st.sampled_from(["driver", "driver-back"]),
    killed=st.integers(0, 20),
    known=st.booleans(),
    reboots=st.booleans(),
)
def test_killed_anywhere_a_driver_is_installed_and_its_host_rebooted_once(
    kind: Kind, killed: int, known: bool, reboots: bool
) -> None:
    """As above: what may be done twice is, the reboot is not, and nothing is left out."""
    skipped = {"hook-before", "hook-after"} | (set() if reboots else {"reboot", "back"})
    sequence = [one for one in SEQUENCES[kind] if one.value not in skipped]
    killed = min(killed, len(sequence) - 1)
    last, before = sequence[killed], sequence[:killed]
    left = record(*(one.value for one in before), last.value if known else f"{last.value}?")
    after_install = Step.INSTALL in before or (last is Step.INSTALL and known)
    left.reboots_for = "another one is loaded" if reboots and after_install else None
    rebooted = reboots and Step.REBOOT in (*before, last)
    marked = Step.LET_GO in (*before, last)
    now = seen(
        NEW if rebooted else OLD,
        "boot 2" if rebooted else "boot 1",
        acting="driver" if marked else None,
    )
    step = go_on(kind, left, now).step
    todo = []
    while step is not None:
        todo.append(step)
        step = after(kind, step)
    happened = known or last is Step.REBOOT
    assert set(sequence) <= {*before, *([last] if happened else []), *todo}
    if reboots:
        assert rebooted != (Step.REBOOT in todo)
        assert Step.BACK in (*before, *([last] if known else []), *todo)
    for earlier, later in [(Step.LET_GO, Step.INSTALL), (Step.TAKE_UP, Step.CHECK)]:
        # whatever is done again is prepared again
        assert later not in todo or earlier in todo


def came_to_nothing(kind: Kind, at: str, code: int = 1) -> HostRecord:
    """A host whose step *at* is known to have failed."""
    sequence = [one.value for one in SEQUENCES[kind] if "hook" not in one.value]
    left = record(*sequence[: sequence.index(at)], f"{at}?", code=code)
    left.steps[-1].outcome = "failed"
    left.state, left.back = "failed", kind == "rollback"
    return left


@pytest.mark.parametrize("at", ["act", "warm", "check"])
@pytest.mark.parametrize(
    ("kind", "step"),
    [("restart", Step.DRAIN), ("converge", Step.CONVERGE), ("rollback", Step.PUT_BACK)],
)
def test_what_does_not_come_up_is_begun_anew(kind: Kind, at: str, step: Step) -> None:
    failed = seen(NEW, phase="failed", up=False)
    found = go_on(kind, came_to_nothing(kind, at), failed)
    assert (found.step, found.anew) == (step, True)
    # whoever lost the lease knows nothing of it
    found = go_on(kind, came_to_nothing(kind, at, code=3), failed)
    assert (found.step, found.anew) == (Step.WARM, False)


def test_a_reboot_that_came_to_nothing_is_no_other_reboot() -> None:
    found = go_on("reboot", came_to_nothing("reboot", "check"), seen(boot="boot 2"))
    assert (found.step, found.anew) == (Step.WARM, False)


def again(left: HostRecord, now: HostSeen) -> list[tuple[str, bool]]:
    """The replicas that are left after a renewal, and whether each is to be restarted."""
    fresh = [replica_record(now, one.name) for one in now.replicas]
    left.replicas = renewed(left, now, fresh)
    due = still_to_restart(left, now)
    return [(one.name, one.name in due) for one in left.replicas]


@pytest.mark.parametrize(
    ("now", "found"),
    [
        # it ended in whichever run
        ({"phase": "failed", "up": False}, [("tiny", True)]),
        ({"phase": "stopped", "up": False}, [("tiny", True)]),
        # systemd starts it over and over
        ({"phase": "starting", "up": False, "restarts": 3}, [("tiny", True)]),
        ({"phase": "warming", "up": True, "restarts": 3}, [("tiny", True)]),
        # somebody has just started it: it is waited for
        (
            {"phase": "warming", "up": False, "restarts": 0, "drained_by_rollout": True},
            [("tiny", False)],
        ),
        # it became warm by itself, and is kept closed
        ({"phase": "drained", "drained_by_rollout": True}, [("tiny", False)]),
        # warm, with what is not its unit's
        ({"phase": "drained", "drained_by_rollout": True, "pending": True}, [("tiny", True)]),
        # it serves: nothing is left to be done
        ({}, []),
    ],
)
def test_what_is_restarted_after_it_came_to_nothing(
    now: dict[str, Any], found: list[tuple[str, bool]]
) -> None:
    assert again(came_to_nothing("converge", "act"), seen(NEW, **now)) == found


def test_one_that_starts_over_and_over_is_restarted_in_whichever_run_it_is() -> None:
    left = came_to_nothing("restart", "act")
    crashing: dict[str, Any] = {"phase": "starting", "up": False, "restarts": 3}
    assert again(left, seen(NEW, **crashing)) == [("tiny", True)]
    assert still_to_restart(left, seen("c" * 32, **crashing)) == ("tiny",)
    assert still_to_restart(left, seen("c" * 32, phase="drained")) == ()


@pytest.mark.parametrize("kind", sorted(RESTARTS))
def test_one_that_systemd_began_while_its_unit_was_changed_is_restarted(kind: Kind) -> None:
    left = record("drain", "act?")
    left.replicas[0].invocation_before = OLD
    begun: dict[str, Any] = {"phase": "warming", "up": False, "unit": "of the unit"}
    late = seen(NEW, configuration="before the unit", **begun)
    assert still_to_restart(left, late) == ("tiny",)
    assert go_on(kind, left, late).step is not Step.WARM
    assert still_to_restart(left, seen(NEW, configuration="of the unit", **begun)) == ()


def test_how_it_was_before_stays_when_it_is_begun_anew() -> None:
    left = came_to_nothing("converge", "act")
    left.replicas[0].configuration_before = "of before"
    left.replicas[0].served = True
    again(left, seen(NEW, phase="failed", up=False, configuration="of now", verdict="unhealthy"))
    (one,) = left.replicas
    assert (one.configuration_before, one.served) == ("of before", True)
    assert one.invocation_before == NEW


def test_a_host_that_turns_back_begins_that_anew() -> None:
    turned = record("converge", "drain", "act", "warm", "check", "ready")
    turned.replicas[0].cut = 2
    turned.turn_back("it is slower")
    assert turned.doing("converge") == "rollback"
    assert go_on("rollback", turned, seen(NEW)).step is Step.HOOK_BEFORE
    turned.steps.append(StepRecord(step="put-back", began_at=0))
    assert go_on("rollback", turned, seen(NEW)).step is Step.PUT_BACK
    turned.steps[-1].outcome = "done"
    turned.renew([replica_record(seen(NEW), "tiny")])
    assert turned.cut == 2
    assert go_on("rollback", turned, seen(NEW)).step is Step.DRAIN
    before = turned.turned_after
    turned.turn_back("once more")
    assert (turned.turned_after, turned.turned) == (before, "it is slower")


def test_what_is_safe_is_taken_back() -> None:
    drained = seen(phase="drained", gate_open=False, drained_by_rollout=True)
    assert take_back("restart", record("drain?"), drained).ready
    anew = seen(NEW, phase="drained", gate_open=False, drained_by_rollout=True, acting="restart")
    found = take_back("restart", record("drain", "act?"), anew)
    assert (found.ready, found.settle, found.leave) == (True, True, None)


@pytest.mark.parametrize(
    ("kind", "left", "now"),
    [
        ("restart", record("drain", "act?"), seen(NEW, up=False, phase="failed", acting="restart")),
        ("restart", record("drain", "act?"), seen(NEW, up=None, phase="warming", acting="restart")),
        ("reboot", record("drain", "act?"), seen(phase="drained", acting="reboot")),
        ("run", record("drain", "act?"), seen(phase="drained", acting="run")),
        ("driver", record("drain", "let-go?"), seen(phase="drained", acting="driver")),
        ("driver", record("let-go", "install", "warm"), seen(phase="drained", acting="driver")),
    ],
)
def test_what_may_be_half_done_stays_closed(kind: Kind, left: HostRecord, now: HostSeen) -> None:
    found = take_back(kind, left, now)
    assert found.leave
    assert not found.ready


@given(kind=st.sampled_from(["driver", "driver-back"]), killed=st.integers(0, 20))
def test_given_up_anywhere_a_driver_that_is_half_changed_serves_nobody(
    kind: Kind, killed: int
) -> None:
    sequence = [one for one in SEQUENCES[kind] if "hook" not in one.value]
    killed = min(killed, len(sequence) - 1)
    *before, last = sequence[: killed + 1]
    left = record(*(one.value for one in before), f"{last.value}?")
    marked = Step.LET_GO in (*before, last)
    proven = Step.CHECK in before
    now = seen(
        phase="drained",
        gate_open=False,
        drained_by_rollout=True,
        acting="driver" if marked else None,
    )
    found = take_back(kind, left, now)
    assert found.ready == (proven or not marked)
    assert bool(found.leave) == (marked and not proven)


def test_what_failed_stays_closed() -> None:
    failed = record("drain", "act")
    failed.state, failed.failure = "failed", "not as well as before"
    assert take_back("restart", failed, seen(NEW)).leave == "not as well as before"
