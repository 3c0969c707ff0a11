"""Every fault of the table: the verdict, the next step, which replicas are drained."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest
from farrier_agent.control.commands import add_commands
from farrier_agent.gpus import ClockEvent
from farrier_agent.health.rule import Rule
from farrier_agent.health.rules import RULES

from tests.agent.health.faults import TABLE, Row
from tests.agent.health.scene import (
    TICK,
    Change,
    Clock,
    drained,
    healthy,
    of,
    replaced,
    replica,
    rules,
    set_to,
    uuid,
)
from tests.agent.health.well import WELL


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_the_verdict_the_next_step_and_who_is_drained(row: Row) -> None:
    clock = Clock()
    assert clock.tick(3).host.state == "healthy"
    health = clock.do(*row.fault).tick(row.ticks)

    (reason, *more) = [
        one
        for one in health.host.reasons
        if one.rule == row.rule
        and (row.gpu is None or one.gpu == uuid(row.gpu))
        and one.replica == row.replica
    ]
    assert (reason.state, reason.next) == (row.state, row.next)
    assert not more
    assert set(rules(health.host.reasons)) == {row.rule, *row.beside}
    if row.command:
        assert reason.command == row.command
    if row.gpu is not None:
        assert health.gpus[uuid(row.gpu)].state == row.state
    assert drained(health) == set(row.drained)
    others = set(health.replicas) - set(row.drained)
    if row.drained:
        assert not any(health.replicas[name].state == "unhealthy" for name in others)


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_a_fault_that_is_there_when_the_agent_starts_counts(row: Row) -> None:
    clock = Clock().do(*row.fault)
    known = Clock()
    known.tick()
    # GPUs are known from before, as they are from the second start of an agent on
    clock.memory = replaced(clock.memory, known=known.memory.known)
    health = clock.tick(row.ticks + 1)
    if row.rule == "nvlink-errors":  # a rate needs two looks
        assert row.rule not in rules(health.host.reasons)
    else:
        assert row.rule in rules(health.host.reasons)
    assert drained(health) == set(row.drained)


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_the_agents_own_commands_can_be_typed(row: Row) -> None:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    clock = Clock()
    clock.tick()
    for reason in clock.do(*row.fault).tick(row.ticks).host.reasons:
        for line in re.split(r" && |; ", reason.command or ""):
            if line.startswith("farrier-agent "):
                assert parser.parse_args(shlex.split(line)[1:]).verb


def test_every_rule_has_its_fault() -> None:
    assert {row.rule for row in TABLE.values()} == {rule.name for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_what_acts_is_unhealthy_and_what_is_latched_says_how_it_clears(rule: Rule) -> None:
    assert rule.state == "unhealthy" or not rule.acts
    assert "ack" in rule.clears or not rule.latched
    assert rule.step.next
    assert rule.when


@pytest.mark.parametrize("changes", WELL.values(), ids=WELL)
def test_what_is_no_fault(changes: tuple[Change, ...]) -> None:
    start = healthy()
    for change in changes:
        start = change(start)
    # from the first look on, for these are states and not events
    clock = Clock(start)
    health = clock.tick(80)
    assert health.host.reasons == ()
    assert {verdict.state for verdict in health.gpus.values()} == {"healthy"}
    assert {verdict.state for verdict in health.replicas.values()} == {"healthy"}


def test_a_host_without_gpus_has_no_faults_of_gpus() -> None:
    clock = Clock().do(
        set_to(
            accelerator="cpu",
            gpus=None,
            nvml=None,
            xids=None,
            kernel_log_problem="no",
            replicas=(replica("a", health="wedged"), replica("b")),
        )
    )
    health = clock.tick(3)
    assert rules(health.host.reasons) == ["replica-wedged"]
    assert health.gpus == {}
    assert health.replicas["b"].state == "healthy"


def test_the_worst_reason_is_the_verdict_and_the_first() -> None:
    clock = Clock()
    clock.tick()
    health = clock.do(
        of(0, persistence_mode=False), of(0, recovery_action="gpu_reset"), of(2, ecc_enabled=False)
    ).tick(2)
    assert health.replicas["a"].state == "unhealthy"
    assert rules(health.replicas["a"].reasons) == ["gpu-recovery-action", "persistence-off"]
    assert health.replicas["b"].state == "degraded"
    assert health.replicas["c"].state == "healthy"
    assert rules(health.host.reasons) == ["gpu-recovery-action", "persistence-off", "ecc-off"]


def test_heat_is_judged_by_the_counter_of_its_seconds_not_by_the_bit_of_the_moment() -> None:
    clock = Clock()
    clock.tick()
    for second in range(63):
        # a third of every interval, and never at the moment of the look
        event = ClockEvent(reason="hw_thermal", active=False, seconds_total=second * TICK / 3)
        health = clock.do(of(3, clock_events=(event,))).tick()
    assert rules(health.host.reasons) == ["thermal-slowdown"]


def test_one_kind_of_heat_is_enough() -> None:
    clock = Clock()
    clock.tick()
    events = tuple(
        ClockEvent(reason=reason, active=reason == "hw_thermal")
        for reason in ("hw_thermal", "sw_thermal")
    )
    health = clock.do(of(3, clock_events=events)).pass_seconds(305)
    assert rules(health.host.reasons) == ["thermal-slowdown"]
