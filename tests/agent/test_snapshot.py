"""From what the collectors saw to readiness, journal lines, metrics and the /status schema."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from farrier_agent import metrics, status, table
from farrier_agent.collectors.replicas import Seen
from farrier_agent.config import AgentConfig
from farrier_agent.snapshot import Machine, changes, compose, summary
from farrier_agent.status import Collector, Gpu, Gpus, Status, StatusError, Unit

from tests.agent.host import replica, samples

AGENT = status.Agent(version="0.1.0", python="3.11.2", pid=1, started_at=1.0)
CONFIG = AgentConfig(host="gpu01", accelerator="cuda", replicas=[replica(port=8101)])
UNIT = Unit(
    name="engine-tiny.service",
    load_state="loaded",
    active_state="active",
    sub_state="running",
    invocation_id="0" * 32,
    main_pid=7,
)
SERVING = Seen(up=True, restart_pending=False, detail=None)
READY: dict[str, Any] = {"phase": "ready", "gate": "open"}
"""What a life says of a replica that serves."""
GPU = Gpu(uuid="GPU-a", index=0, up=True, memory_total_bytes=100, utilization_ratio=0.5)


def collector(name: str, **fields: object) -> Collector:
    values = {"success": True, "fresh": True, "duration_seconds": 0.1, "last_success_at": 5.0}
    return msgspec.convert({"name": name} | values | fields, Collector)


GOOD = tuple(collector(name) for name in ("gpu", "units", "replicas"))


def snapshot(
    *,
    collectors: tuple[Collector, ...] = GOOD,
    gpus: Gpus | None = Gpus(count=1, devices=(GPU,)),  # noqa: B008 - it is immutable
    unit: Unit | None = UNIT,
    seen: Seen | None = SERVING,
    life: dict[str, Any] = READY,
) -> Status:
    return compose(
        CONFIG,
        AGENT,
        at=10.0,
        collectors=collectors,
        machine=Machine(gpus=gpus),
        units=None if unit is None else [unit],
        seen=None if seen is None else {"tiny": seen},
        show=lambda one: msgspec.structs.replace(one, **life),
    )


def test_a_serving_host_is_ready() -> None:
    one = snapshot()
    assert one.ready
    assert one.reasons == ()
    assert one.replicas[0].unit_state == UNIT


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (
            snapshot(seen=Seen(up=False, restart_pending=None, detail="why")),
            "replica tiny: not up: why",
        ),
        (
            snapshot(life={"phase": "ready", "gate": "closed", "detail": "gate closed: by hand"}),
            "replica tiny: gate closed: by hand",
        ),
        (snapshot(life={"phase": "ready", "gate": None}), "replica tiny: gate not known"),
        (
            snapshot(life={"phase": "draining", "gate": "open", "detail": "draining: a notice"}),
            "replica tiny: draining: a notice",
        ),
        (
            snapshot(
                seen=Seen(up=False, restart_pending=None, detail="/health: no answer"),
                life={"phase": "warming", "gate": "closed", "detail": "warming: /health: ..."},
            ),
            "replica tiny: warming: /health: ...",
        ),
        (snapshot(seen=None), "replica tiny: its state is not known"),
        (
            snapshot(
                collectors=(
                    collector("gpu", fresh=False, success=False, error="NVML hangs"),
                    *GOOD[1:],
                )
            ),
            "collector gpu: no fresh data: NVML hangs",
        ),
    ],
)
def test_a_host_that_is_not_ready_says_why(one: Status, reason: str) -> None:
    assert not one.ready
    assert one.reasons == (reason,)


def test_a_host_without_replicas_is_ready_with_its_collectors() -> None:
    gateway = AgentConfig(host="gw01", accelerator="cpu")
    one = compose(gateway, AGENT, at=1.0, collectors=(), units=None, seen=None)
    assert one.ready


def test_metrics_of_a_serving_host() -> None:
    found = samples(metrics.render(snapshot()).decode())
    assert found["farrier_gpus", ()] == 1
    assert found["farrier_gpu_memory_total_bytes", (("uuid", "GPU-a"),)] == 100
    assert found["farrier_gpu_utilization_ratio", (("uuid", "GPU-a"),)] == 0.5
    assert found["farrier_replica_up", (("replica", "tiny"),)] == 1
    assert found["farrier_replica_restart_pending", (("replica", "tiny"),)] == 0
    states = {
        dict(labels)["state"]: value
        for (name, labels), value in found.items()
        if name == "farrier_unit_state"
    }
    assert states == {state: float(state == "active") for state in metrics.UNIT_STATES}


def test_what_is_not_known_has_no_sample() -> None:
    unknown = snapshot(gpus=None, unit=None, seen=None, life={})
    names = {name for name, _ in samples(metrics.render(unknown).decode())}
    assert not {name for name in names if name.startswith("farrier_gpu")}
    assert "farrier_unit_state" not in names
    assert "farrier_replica_up" not in names
    assert "farrier_replica_gate_open" not in names
    assert "farrier_replica_restart_pending" not in names
    assert "farrier_replica_info" in names
    values = {name for name, _ in samples(metrics.render(snapshot()).decode())}
    assert "farrier_gpu_temperature_celsius" not in values


def test_only_the_uuid_is_a_label_of_gpu_values() -> None:
    found = samples(metrics.render(snapshot()).decode())
    values = {name: labels for name, labels in found if name.startswith("farrier_gpu_")}
    del values["farrier_gpu_info"], values["farrier_gpu_problem"]  # the latter is one-hot
    assert set(values.values()) == {(("uuid", "GPU-a"),)}


def test_labels_are_escaped() -> None:
    odd = Gpu(uuid='GPU-"a"\n', index=0, up=True)
    found = samples(metrics.render(snapshot(gpus=Gpus(count=1, devices=(odd,)))).decode())
    assert ("farrier_gpu_up", (("uuid", 'GPU-"a"\n'),)) in found


def told(old: Status | None, new: Status) -> list[str]:
    return [change.text for change in changes(old, new)]


def test_the_journal_is_told_once() -> None:
    one = snapshot()
    assert told(None, one) == ["replica tiny: up, gate open", "host is ready"]
    assert told(one, one) == []


def test_the_journal_hears_nothing_before_the_first_look() -> None:
    waiting = collector("units", success=False, fresh=False, duration_seconds=None)
    assert told(None, snapshot(collectors=(waiting,), gpus=None, seen=None)) == []


def test_the_journal_is_told_what_changed() -> None:
    failed = collector("gpu", success=False, error="NVML hangs")
    lost = Gpus(count=1, devices=(Gpu(uuid="GPU-a", index=0, up=False),), problems=("odd",))
    down = Seen(up=False, restart_pending=None, detail="/health answers 503")
    old, new = snapshot(), snapshot(collectors=(failed, *GOOD[1:]), gpus=lost, seen=down)
    assert told(old, new) == [
        "replica tiny: not up, gate open: /health answers 503",
        "collector gpu failed: NVML hangs",
        "odd",
        "GPU 0 (GPU-a) does not answer (lost)",
        "host is not ready: replica tiny: not up: /health answers 503",
    ]
    assert told(new, old) == [
        "replica tiny: up, gate open",
        "collector gpu works again",
        "GPU 0 (GPU-a) is back",
        "host is ready",
    ]


def test_the_operators_side_reads_what_the_agent_says() -> None:
    one = snapshot()
    assert status.loads(status.dumps(one)) == one


def test_a_field_of_a_later_agent_is_no_harm() -> None:
    later = msgspec.json.decode(status.dumps(snapshot()))
    later["verdict"] = "healthy"
    later["replicas"][0]["weather"] = {"since": 1}
    assert status.loads(msgspec.json.encode(later)) == snapshot()


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b'{"schema": 1}', b'{"schema": "1"}'])
def test_what_is_no_status_is_refused(data: bytes) -> None:
    with pytest.raises(StatusError, match="not a status"):
        status.loads(data)


def test_a_later_schema_is_refused() -> None:
    with pytest.raises(StatusError, match="newer"):
        status.loads(b'{"schema": 2, "everything": "else"}')


def test_the_table_says_what_is_not_known() -> None:
    text = table.render(snapshot(unit=None, seen=None, life={}))
    row = next(line for line in text.splitlines() if line.startswith("tiny "))
    assert row.split() == ["tiny", "tiny", "vllm", *"??????"]
    assert "gpu01: not ready" in text
    serving = table.render(snapshot())
    assert "50 %" in serving
    assert "? °C" in serving


def test_one_line_for_systemctl_status() -> None:
    assert summary(snapshot()) == "ready"
    drain = status.Drain(
        asked_by=("root",),
        reasons=("an upgrade",),
        policy="extend",
        begun_at=1.0,
        deadline_at=901.0,
        seconds=3.0,
    )
    life = {"phase": "draining", "gate": "closed", "detail": "draining: an upgrade"}
    busy = snapshot(life={**life, "drain": drain, "in_flight": 3})
    assert summary(busy) == "tiny: draining, 3 in flight"
    assert summary(snapshot(unit=None, seen=None)) == "replica tiny: its state is not known"


def test_a_cloud_that_does_not_answer_makes_no_host_unready() -> None:
    silent = collector("notices", fresh=False, success=False, error="nothing listens")
    assert snapshot(collectors=(*GOOD, silent)).ready
