"""What ``farrier-agent status`` says to a person at night."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from farrier_agent import metrics, status, table
from farrier_agent.status import Drain, Notice, Replica, Status, Unit
from farrier_agent.wording import clock, duration
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_800_000_000.0
AGENT = status.Agent(version="0.1.0", python="3.11.2", pid=1, started_at=1.0)
RUNNING = Unit(
    name="engine-tiny.service", load_state="loaded", active_state="active", sub_state="running"
)
DRAIN = Drain(
    asked_by=("ops (uid 1000)", "cloud notice"),
    reasons=("new kernel", "aws preempt"),
    policy="force",
    begun_at=NOW - 30,
    deadline_at=NOW + 861,
    seconds=30.0,
    in_flight_at_close=30,
)


def replica(name: str = "tiny", **fields: Any) -> Replica:
    values: dict[str, Any] = {
        "model": "tiny",
        "engine": "vllm",
        "unit": f"engine-{name}.service",
        "port": 8101,
    }
    return Replica(name=name, **({"unit_state": RUNNING} | values | fields))


def shown(*replicas: Replica, **fields: Any) -> list[str]:
    values: dict[str, Any] = {"host": "gpu01", "accelerator": "cpu", "agent": AGENT, "ready": True}
    one = Status(at=NOW, replicas=replicas, **(values | fields))
    return table.render(one).splitlines()


def at(moment: float) -> str:
    return clock(moment, NOW)


def test_a_replica_that_serves_is_one_line() -> None:
    one = replica(
        phase="ready",
        since_at=NOW - 5,
        up=True,
        gate="open",
        in_flight=3,
        strangers=0,
        health="busy",
        restart_pending=False,
        restarts=0,
    )
    assert shown(one) == [
        "gpu01: ready (agent 0.1.0, cpu)",
        "",
        "REPLICA  MODEL  ENGINE  PHASE  UP   IN FLIGHT  GATE  HEALTH  RESTART",
        "tiny     tiny   vllm    ready  yes  3          open  busy    -",
    ]


def test_a_drain_says_who_why_until_when_and_for_what_it_waits() -> None:
    one = replica(
        phase="draining",
        reason="new kernel",
        asked_by="ops (uid 1000)",
        since_at=NOW - 30,
        up=True,
        gate="closed",
        in_flight=7,
        strangers=2,
        drain=DRAIN,
        restart_pending=True,
    )
    row, *below = shown(one)[3:]
    assert row.split() == ["tiny", "tiny", "vllm", "draining", "yes", "7", "closed", "?", "pending"]
    assert below == [
        "  drain asked by ops (uid 1000): new kernel",
        "  drain asked by cloud notice: aws preempt",
        "  waits for 7 requests in flight, 30 when the gate closed; since 30.0 s",
        f"  deadline {at(NOW + 861)}, in 14:21 min, then what still runs is cut (force)",
        "  2 connections to port 8101 past nginx, not waited for; whose: ss -tnp 'sport = :8101'",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"settling": True}, "settling: requests are still accepted"),
        ({"policy": "extend"}, "then it waits on (extend)"),
        ({"policy": "abort"}, "then the drain is taken back (abort)"),
        ({"deadline_at": NOW - 1}, "passed, then"),
        ({}, "waits for the requests in flight, which cannot be counted; since 30.0 s"),
    ],
)
def test_how_a_drain_stands(changes: dict[str, Any], said: str) -> None:
    one = replica(phase="draining", drain=msgspec.structs.replace(DRAIN, **changes))
    assert said in "\n".join(shown(one))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "drained after 30.0 s, nothing cut; since ?"),
        ({"forced": True, "cut": 1}, "drained after 30.0 s, given up, 1 request CUT"),
        ({"forced": True, "cut": 12}, "drained after 30.0 s, given up, 12 requests CUT"),
        ({"forced": True}, "given up, an unknown number of requests CUT"),
    ],
)
def test_drained(changes: dict[str, Any], said: str) -> None:
    one = replica(phase="drained", drain=msgspec.structs.replace(DRAIN, over=True, **changes))
    *_, first, second = shown(one)
    assert said in first
    assert second == "  it stays closed; to open it: farrier-agent ready tiny"


def test_one_that_systemd_stops_cannot_be_taken_back_and_nobody_is_told_to() -> None:
    stopping = msgspec.structs.replace(RUNNING, active_state="deactivating", sub_state="stop")
    drain = msgspec.structs.replace(DRAIN, over=True)
    text = "\n".join(shown(replica(phase="drained", drain=drain, unit_state=stopping)))
    assert "systemd is stopping the unit" in text
    assert "engine-tiny.service is deactivating (stop)" in text
    assert "farrier-agent ready" not in text


def test_one_that_is_held_while_it_warms_says_how_it_is_freed() -> None:
    text = "\n".join(shown(replica(phase="warming", drain=DRAIN)))
    assert "held: it stays closed, also when it is warm; to take that back: farrier-agent" in text
    assert "drain asked by ops (uid 1000): new kernel" in text


def test_health_restarts_and_the_last_drain() -> None:
    over = msgspec.structs.replace(DRAIN, over=True, forced=True, cut=3)
    failed = msgspec.structs.replace(RUNNING, active_state="failed", sub_state="failed")
    one = replica(
        phase="failed",
        reason="wedged again after 3 restarts",
        asked_by="farrier-agent",
        since_at=NOW - 7200,
        health="wedged",
        health_restarts=3,
        restarts=1,
        unit_state=failed,
        last_drain=over,
    )
    assert shown(one)[4:] == [
        "  engine-tiny.service is failed (failed)",
        "  systemd restarted it once after failures",
        f"  failed since {at(NOW - 7200)} (2:00 h): wedged again after 3 restarts (asked by"
        " farrier-agent)",
        "  health: wedged: it has requests, and makes no progress",
        "  restarted 3 times within the last hour for being wedged",
        "  last drain: 30.0 s, given up, 3 requests CUT",
    ]


def test_notices_are_on_top_the_next_one_first() -> None:
    def notice(kind: str, moment: float, *, drains: bool, detail: str = "") -> Notice:
        return Notice(cloud="aws", kind=kind, id=kind, at=moment, drains=drains, detail=detail)

    lines = shown(
        replica(),
        ready=False,
        reasons=("replica tiny: draining",),
        notices=(
            notice("rebalance", NOW + 7200, drains=False),
            notice("preempt", NOW + 118, drains=True, detail="instance-action terminate"),
        ),
    )
    assert lines[1] == (
        f"NOTICE aws preempt at {at(NOW + 118)}, in 1:58 min; this host is drained for it: "
        "instance-action terminate"
    )
    assert lines[2].startswith("NOTICE aws rebalance at ")
    assert lines[2].endswith(", in 2:00 h; nothing is drained for it")
    assert lines[3] == "  replica tiny: draining"


def test_units_of_the_host_that_are_there() -> None:
    def unit(name: str, state: str, load: str = "loaded") -> Unit:
        return Unit(name=name, load_state=load, active_state=state, sub_state="dead")

    units = (
        unit("nginx.service", "failed"),
        unit("nvidia-fabricmanager.service", "x", "not-found"),
    )
    assert shown(units=units)[-1] == "units: nginx.service failed (dead)"


def test_a_long_model_loses_its_middle_and_nothing_else_its_place() -> None:
    model = "registry.example.org/meta-llama/Llama-3.3-70B-Instruct-quantized.w8a8"
    lines = shown(
        replica("a-name-of-some-length", model=model, phase="ready", up=True, gate="open"),
        replica("b", phase="draining"),
    )
    assert max(map(len, lines)) == 100
    row = next(line for line in lines if line.startswith("a-name-of-some-length"))
    shortened = row.split()[1]
    assert "…" in shortened
    assert shortened.endswith("w8a8")
    assert row.split()[2] == "vllm"


texts = st.text(max_size=80)
drains = st.builds(
    Drain,
    asked_by=st.tuples(texts),
    reasons=st.tuples(texts),
    policy=st.sampled_from(["extend", "abort", "force"]),
    begun_at=st.floats(0, 1e12),
    deadline_at=st.floats(0, 1e18),
    seconds=st.floats(0, 1e9),
    settling=st.booleans(),
    over=st.booleans(),
    in_flight_at_close=st.none() | st.integers(0, 10**6),
    forced=st.booleans(),
    cut=st.none() | st.integers(0, 10**6),
)


replicas = st.builds(
    Replica,
    name=st.just("tiny"),
    model=st.text(max_size=120),
    engine=st.just("vllm"),
    unit=st.just("engine-tiny.service"),
    port=st.just(8101),
    reason=st.none() | texts,
    phase=st.none() | st.sampled_from(metrics.PHASES),
    since_at=st.none() | st.floats(0, 1e18),
    drain=st.none() | drains,
    last_drain=st.none() | drains,
)


@given(one=replicas, detail=texts, moment=st.floats(0, 1e18))
def test_whatever_is_said_no_line_is_broken_and_no_cursor_moves(
    one: Replica, detail: str, moment: float
) -> None:
    notice = Notice(cloud="gcp", kind="stop", id="1", at=moment, drains=True, detail=detail)
    for line in shown(one, notices=(notice,), reasons=(detail,)):
        assert line.isprintable()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1:00 min"),
        (3599.6, "1:00 h"),
        (86400 * 3, "3 days"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_moment_of_another_day_has_its_day() -> None:
    assert len(clock(NOW, NOW)) == len("08:00:00")
    assert clock(NOW - 86400 * 2, NOW).startswith("20")
    assert clock(1e300, NOW) == "?"
