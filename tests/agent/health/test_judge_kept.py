"""What the judge of a host remembers across restarts and reboots, and survives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from farrier_agent.health.keeping import Judge
from farrier_agent.health.observed import Observed

from tests.agent.health.faults import TABLE
from tests.agent.health.scene import (
    BY,
    Clock,
    away,
    back,
    healthy,
    of,
    rebooted,
    replaced,
    reset,
    rules,
    set_to,
    uuid,
    xid,
)


def later(now: Observed, seconds: float = 5.0) -> Observed:
    return replaced(now, at=now.at + seconds, monotonic=now.monotonic + seconds)


def due(judge: Judge) -> bool:
    return judge.unsaved


def broken(*changes: object) -> Observed:
    return Clock(healthy()).do(*changes).now  # type: ignore[arg-type]


def test_a_latched_fault_outlives_the_agent(tmp_path: Path) -> None:
    judge = Judge(tmp_path / "health.json")
    now = later(broken(xid(2, 119)))
    since = judge.judge(now).host.reasons[0].since_at
    assert due(judge)
    judge.save()
    assert not due(judge)

    judge = Judge(tmp_path / "health.json")
    assert judge.problem is None
    # before the kernel's log was read again
    health = judge.judge(later(replaced(now, xids=None)))
    assert rules(health.host.reasons) == ["xid-reset"]
    assert health.host.reasons[0].since_at == since
    assert rules(health.replicas["b"].reasons) == ["xid-reset"]


def test_a_reset_while_no_agent_ran_is_seen(tmp_path: Path) -> None:
    judge = Judge(tmp_path / "health.json")
    now = later(broken(xid(2, 119)))
    judge.judge(now)
    judge.save()
    judge = Judge(tmp_path / "health.json")
    now = reset(2)(later(now, 60))
    judge.judge(now)
    assert judge.judge(later(now)).host.state == "healthy"


def test_a_reboot_while_no_agent_ran_is_seen(tmp_path: Path) -> None:
    judge = Judge(tmp_path / "health.json")
    now = later(broken(xid(2, 79), away(2, "gone")))
    judge.judge(now)
    now = later(now)
    assert {*rules(judge.judge(now).host.reasons)} == {"xid-reboot", "gpu-missing"}
    judge.save()
    judge = Judge(tmp_path / "health.json")
    now = back(2)(rebooted()(later(now, 300)))
    for _ in range(3):
        assert judge.judge(now).host.state == "unhealthy" or _ == 2
        now = later(now)
    assert judge.judge(now).host.state == "healthy"


def test_gpus_that_are_known_are_unknown_and_not_absent_after_a_restart(tmp_path: Path) -> None:
    judge = Judge(tmp_path / "health.json")
    judge.judge(healthy())
    judge.save()
    judge = Judge(tmp_path / "health.json")
    health = judge.judge(later(replaced(healthy(), gpus=None)))
    assert {one.state for one in health.gpus.values()} == {"unknown"}
    assert len(health.gpus) == 8
    assert health.replicas["a"].state == "unknown"


def test_nothing_is_written_while_nothing_changes(tmp_path: Path) -> None:
    judge = Judge(tmp_path / "health.json")
    clock = Clock()
    judge.judge(clock.now)
    judge.save()
    for _ in range(20):
        clock.tick()
        judge.judge(clock.now)
        assert not judge.unsaved
    clock.do(of(3, persistence_mode=False))
    for written in (False, True):
        clock.tick()
        judge.judge(clock.now)
        assert judge.unsaved is written


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 4096,
        b"[]",
        b'{"schema": "one"}',
        b'{"schema": 99}',
        b'{"schema": 1, "marks": [{"rule": 1}]}',
        b'{"schema": 1, "known": {"a": null}}',
        b"[" * 100_000,
        b"\xff\xfe",
        b" " * 2_000_000,
    ],
    ids=lambda data: repr(data[:30]),
)
def test_garbage_in_the_file_is_survived_and_said(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "health.json"
    path.write_bytes(data)
    judge = Judge(path)
    said = judge.problem or ""
    assert str(path) in said
    assert "forgotten" in said
    assert judge.judge(healthy()).host.state == "healthy"
    judge.save()
    assert judge.problem is None
    assert Judge(path).problem is None


def test_a_file_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "health.json").mkdir()
    judge = Judge(tmp_path / "health.json")
    assert judge.problem is not None
    assert "Is a directory" in judge.problem
    judge.judge(healthy())
    with pytest.raises(OSError, match="directory"):
        judge.save()
    assert due(judge)


def test_a_fault_of_a_rule_that_is_gone_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    judge = Judge(path)
    judge.judge(later(broken(xid(2, 119))))
    judge.save()
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"xid-reset"', '"xid-of-old"'), encoding="utf-8")
    judge = Judge(path)
    assert judge.problem is None
    assert judge.judge(later(healthy())).host.state == "healthy"


def test_the_file_is_for_people_too(tmp_path: Path) -> None:
    judge = Judge(tmp_path / "health.json")
    judge.judge(later(broken(xid(2, 119))))
    judge.save()
    kept = json.loads((tmp_path / "health.json").read_text(encoding="utf-8"))
    assert kept["schema"] == 1
    assert [(one["rule"], one["gpu"]) for one in kept["marks"]] == [("xid-reset", uuid(2))]


def test_a_rule_that_only_observes_says_the_same_and_drains_nothing(tmp_path: Path) -> None:
    row = TABLE["XID 79"]
    judge = Judge(tmp_path / "health.json", observe_only=["xid-reboot"])
    health = judge.judge(later(broken(*row.fault)))
    (reason,) = health.replicas["b"].reasons
    assert (reason.rule, reason.state, reason.acts) == ("xid-reboot", "unhealthy", False)
    assert judge.decide(health, healthy().replicas, at=healthy().at, by=BY) == ()


def test_an_unknown_rule_to_observe_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"xid-reboots .*known: nvml-hangs, "):
        Judge(tmp_path / "health.json", observe_only=["xid-reboots", "xid-reset"])


def test_an_ack_outlives_the_agent(tmp_path: Path) -> None:
    judge = Judge(tmp_path / "health.json")
    now = later(broken(xid(2, 119)))
    judge.judge(now)
    assert [one.rule for one in judge.ack(None, None, now.at)] == ["xid-reset"]
    judge.save()
    judge = Judge(tmp_path / "health.json")
    # the line is still in the kernel's log
    assert judge.judge(later(now)).host.state == "healthy"


def test_what_was_decided_outlives_the_agent(tmp_path: Path) -> None:
    judge = Judge(tmp_path / "health.json")
    now = later(broken(xid(2, 119)))
    health = judge.judge(now)
    assert [one.replica for one in judge.decide(health, now.replicas, at=now.at, by=BY)] == ["b"]
    judge.begun("b")
    judge.overruled("b", health)
    judge.save()
    judge = Judge(tmp_path / "health.json")
    now = later(now)
    assert judge.decide(judge.judge(now), now.replicas, at=now.at, by=BY) == ()


def test_losing_the_boot_id_for_a_while_is_no_reboot(tmp_path: Path) -> None:
    judge = Judge(tmp_path / "health.json")
    now = later(broken(xid(2, 119)))
    judge.judge(now)
    now = replaced(now, xids=())
    for _ in range(3):
        now = set_to(boot_id="")(later(now))
        assert judge.judge(now).host.state == "unhealthy"
    now = set_to(boot_id="boot-1")(later(now))
    for _ in range(4):
        now = later(now)
        assert judge.judge(now).host.state == "unhealthy"
