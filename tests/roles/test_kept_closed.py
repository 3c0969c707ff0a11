"""Replicas that serve nobody on purpose, or will not come up: a converge says so and waits not."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.roles.converging import Converge
from tests.roles.fleet import Fleet, until
from tests.roles.outcomes import (
    VICTIM,
    assert_refused,
    assert_repaired,
    with_data,
    with_model,
)

AT_ONCE = 60.0
"""Seconds for a converge that waits for nothing; an engine has ten minutes."""


@pytest.fixture
def served_again(fleet: Fleet) -> Iterator[None]:
    yield
    fleet.root(VICTIM, "farrier-agent ready tiny --wait", check=False)
    until(lambda: fleet.gate(VICTIM), 60, "it serves again")


@pytest.mark.usefixtures("served_again")
def test_a_drain_is_left_and_told(fleet: Fleet, converge: Converge) -> None:
    fleet.root(VICTIM, "farrier-agent drain tiny --wait --reason 'a fan is being exchanged'")
    began = time.monotonic()
    run = converge(limit=[VICTIM])
    assert time.monotonic() - began < AT_ONCE
    assert (run.returncode, run.changed(VICTIM)) == (0, []), run.last_words()
    left = run.last_section("Left as it is")
    assert f"{VICTIM}: replica tiny is drained: a fan is being exchanged" in left
    assert "sudo farrier-agent ready tiny" in left
    assert not fleet.gate(VICTIM)
    # a converge restarts the agent when its data changed: still nobody opens the gate
    run = converge(limit=[VICTIM], data=with_data(converge, agent_tick=1.25))
    assert run.changed(VICTIM) == ["Agent | Configuration", "Agent | Service"]
    assert "a fan is being exchanged" in run.last_section("Left as it is")
    assert not fleet.gate(VICTIM)
    assert converge(limit=[VICTIM]).returncode == 0


@pytest.mark.usefixtures("served_again")
def test_a_drained_engine_that_ends_is_started_and_stays_drained(
    fleet: Fleet, converge: Converge
) -> None:
    """It was down when the converge came: what is waited for is that it is warm, not its gate."""
    fleet.root(VICTIM, "farrier-agent drain tiny --wait --reason 'a fan is being exchanged'")
    pid = fleet.unit(VICTIM, "engine-tiny", "MainPID")
    fleet.root(
        VICTIM, f"systemctl kill --signal=SIGKILL engine-tiny; tail --pid={pid} -f /dev/null"
    )
    began = time.monotonic()
    run = converge(limit=[VICTIM])
    assert time.monotonic() - began < AT_ONCE
    assert run.returncode == 0, run.last_words()
    assert "a fan is being exchanged" in run.last_section("Left as it is")
    assert fleet.unit(VICTIM, "engine-tiny", "ActiveState") == "active"
    assert not fleet.gate(VICTIM)


@pytest.fixture
def restarted(fleet: Fleet) -> Iterator[None]:
    yield
    converge = fleet.converge(limit=[VICTIM])
    if converge.returncode:
        fleet.root(VICTIM, "systemctl restart engine-tiny")
    until(lambda: fleet.gate(VICTIM), 60, "it serves again")


@pytest.mark.usefixtures("restarted")
def test_a_warm_up_that_failed_is_told_at_once(fleet: Fleet, converge: Converge) -> None:
    """The engine runs and answers nobody; its agent gave it up long before the converge would."""
    deaf = with_model(converge, command=["/bin/sleep", "1{port}"])
    data = with_data(converge, agent_warm_up_seconds=3)
    fleet.root(VICTIM, "systemctl stop engine-tiny")
    began = time.monotonic()
    run = converge(limit=[VICTIM, "gpu02"], models=deaf, data=data)
    assert_refused(
        run,
        "replica tiny (engine-tiny.service) failed: warm-up failed:",
        "sudo farrier-agent ready tiny",
        "Correct the model in the inventory",
    )
    # as it stands, nothing is waited for any more
    again = converge(limit=[VICTIM, "gpu02"], models=deaf, data=data)
    assert_refused(again, "failed: warm-up failed:")
    assert time.monotonic() - began < 2 * AT_ONCE
    # corrected: it runs the older command, and says how the new one is taken
    run = converge(limit=[VICTIM, "gpu02"], data=data)
    assert_refused(run, "older configuration", "sudo farrier-agent restart tiny")
    assert converge(limit=[VICTIM], models=deaf).returncode == 1
    run = converge(limit=[VICTIM])
    assert "sudo farrier-agent restart tiny" in run.last_section("Failed:")
    said = fleet.root(VICTIM, "farrier-agent restart tiny --wait 2>&1")
    assert fleet.gate(VICTIM), said
    assert_repaired(fleet)
