"""The metrics of replicas, drains, notices and gateways, as Prometheus reads them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from farrier_agent import metrics, status
from farrier_agent.status import AgentCheck, Drain, Notice, Replica, Status, Unit

from tests.agent.host import samples

AGENT = status.Agent(version="0.1.0", python="3.11.2", pid=1, started_at=1.0)
UNDER_WAY = Drain(
    asked_by=("uid 0",),
    reasons=("kernel",),
    policy="extend",
    begun_at=100.0,
    deadline_at=1000.0,
    seconds=12.5,
)
OVER = msgspec.structs.replace(UNDER_WAY, seconds=30.25, over=True)


def replica(name: str = "tiny", **fields: Any) -> Replica:
    return Replica(
        name=name, model="m", engine="vllm", unit=f"engine-{name}.service", port=1, **fields
    )


def of(*replicas: Replica, **fields: Any) -> dict[tuple[str, str], float]:
    """Samples by name and the rest of their labels' values, without those of every host."""
    one = Status(
        host="gpu01",
        at=200.0,
        accelerator="cpu",
        agent=AGENT,
        ready=True,
        replicas=replicas,
        **fields,
    )
    found = samples(metrics.render(one).decode())
    return {
        (name, " ".join(value for _, value in sorted(labels))): value
        for (name, labels), value in found.items()
        if not name.startswith(("process_", "farrier_agent_build", "farrier_agent_info"))
    }


@pytest.mark.parametrize("phase", metrics.PHASES)
def test_one_phase_is_1_and_the_others_are_0(phase: str) -> None:
    found = of(replica(phase=phase))
    assert {key[1]: value for key, value in found.items() if key[0] == "farrier_replica_phase"} == {
        f"{one} tiny": float(one == phase) for one in metrics.PHASES
    }


def test_the_verdict_on_health_is_one_of_five() -> None:
    found = of(replica(health="wedged"))
    states = {key[1]: value for key, value in found.items() if key[0] == "farrier_replica_health"}
    assert states == {f"tiny {one}": float(one == "wedged") for one in metrics.HEALTH}


def test_of_a_replica_of_which_nothing_is_known_there_is_its_name_alone() -> None:
    assert set(of(replica())) == {("farrier_replica_info", "vllm m tiny")}


def test_counts_and_times() -> None:
    one = replica(
        phase="draining",
        since_at=150.0,
        in_flight=7,
        strangers=0,
        restarts=4,
        health_restarts=2,
        drain=UNDER_WAY,
    )
    found = of(one)
    expected = {
        "phase_since_timestamp_seconds": 150.0,
        "in_flight": 7,
        "strangers": 0,
        "restarts": 4,
        "health_restarts": 2,
        "held": 1,
        "drain_seconds": 12.5,
        "drain_deadline_timestamp_seconds": 1000.0,
    }
    for name, value in expected.items():
        assert found[f"farrier_replica_{name}", "tiny"] == value
    assert ("farrier_replica_last_drain_seconds", "tiny") not in found
    assert ("farrier_replica_requests_cut_last_drain", "tiny") not in found


@pytest.mark.parametrize(
    ("fields", "seconds", "cut"),
    [
        ({"last_drain": OVER}, 30.25, 0),
        ({"drain": OVER}, 30.25, 0),  # it still holds it closed, and it is the last one
        ({"drain": UNDER_WAY, "last_drain": OVER}, 30.25, 0),
        ({"last_drain": msgspec.structs.replace(OVER, forced=True, cut=3)}, 30.25, 3),
        ({"last_drain": msgspec.structs.replace(OVER, forced=True)}, 30.25, None),
    ],
)
def test_the_last_drain(fields: dict[str, Any], seconds: float, cut: int | None) -> None:
    found = of(replica(phase="ready", **fields))
    assert found["farrier_replica_last_drain_seconds", "tiny"] == seconds
    assert found.get(("farrier_replica_requests_cut_last_drain", "tiny")) == cut


def test_what_is_over_is_not_under_way_and_still_holds() -> None:
    found = of(replica(phase="drained", drain=OVER))
    assert ("farrier_replica_drain_seconds", "tiny") not in found
    assert ("farrier_replica_drain_deadline_timestamp_seconds", "tiny") not in found
    assert found["farrier_replica_held", "tiny"] == 1
    assert of(replica(phase="ready"))["farrier_replica_held", "tiny"] == 0


def test_units_of_the_host_beside_those_of_replicas() -> None:
    def unit(name: str, state: str, load: str = "loaded") -> Unit:
        return Unit(name=name, load_state=load, active_state=state, sub_state="x")

    found = of(
        replica(unit_state=unit("engine-tiny.service", "active")),
        units=(
            unit("nginx.service", "failed"),
            unit("engine-tiny.service", "active"),  # watched twice is no sample twice
            unit("nvidia-fabricmanager.service", "inactive", "not-found"),
        ),
    )
    ones = {key[1] for key, value in found.items() if key[0] == "farrier_unit_state" and value}
    assert ones == {"active engine-tiny.service", "failed nginx.service"}
    assert not any("fabricmanager" in labels for _, labels in found)


def test_of_notices_alike_the_first_to_happen_counts() -> None:
    def notice(kind: str, at: float) -> Notice:
        return Notice(cloud="aws", kind=kind, id=str(at), at=at, drains=True)

    found = of(notices=(notice("preempt", 900.0), notice("preempt", 300.0), notice("reboot", 5.0)))
    assert found == {
        ("farrier_host_notice_timestamp_seconds", "aws preempt"): 300.0,
        ("farrier_host_notice_timestamp_seconds", "aws reboot"): 5.0,
    }


def test_questions_of_gateways_are_a_counter() -> None:
    found = of(agent_check=AgentCheck(answered=12, refused=1))
    assert found == {
        ("farrier_agent_check_questions_total", "answered"): 12,
        ("farrier_agent_check_questions_total", "refused"): 1,
    }
    assert of() == {}
