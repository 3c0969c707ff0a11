"""Where a rollout goes on: from a ledger and what hosts say. No host."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farrier.rollout.ledger import HostRecord, ReplicaRecord, StepRecord
from farrier.rollout.plan import RESTARTS, Kind
from farrier.rollout.resuming import go_on, still_to_restart, take_back
from farrier.rollout.seen import HostSeen
from farrier.rollout.steps import SEQUENCES, Step, after
from tests.unit.test_rollout_plan import replica

OLD, NEW = "a" * 32, "b" * 32
KINDS: tuple[Kind, ...] = get_args(Kind)


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
    kind=st.sampled_from(KINDS),
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
    ],
)
def test_what_may_be_half_done_stays_closed(kind: Kind, left: HostRecord, now: HostSeen) -> None:
    found = take_back(kind, left, now)
    assert found.leave
    assert not found.ready


def test_what_failed_stays_closed() -> None:
    failed = record("drain", "act")
    failed.state, failed.failure = "failed", "not as well as before"
    assert take_back("restart", failed, seen(NEW)).leave == "not as well as before"
