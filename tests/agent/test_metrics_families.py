"""What single families say of GPUs, verdicts, requests and the NVML worker."""

from __future__ import annotations

from typing import Literal

import pytest
from farrier_agent.gpus import EccCount, Fabric, Gpu, GpuProcess, Gpus, Nvml, Xid
from farrier_agent.metrics import ecc, links
from farrier_agent.metrics.page import Extra
from farrier_agent.nvml.readings import fabric as fabric_readings
from farrier_agent.status import Health, Reason, Verdict

from tests.agent.full_status import requests
from tests.agent.pages import NOWHERE, named, of, status_of

MEMORIES: tuple[Literal["all", "dram", "sram"], ...] = ("all", "dram", "sram")


def test_a_lost_gpu_is_there_and_not_up() -> None:
    lost = Gpu(uuid="a", index=3, up=False, problem="gone", name="H200")
    found = of(status_of(gpus=Gpus(count=7, devices=(lost,))))
    assert named("farrier_gpu_up", found) == {"a": 0}
    assert named("farrier_gpu_problem", found) == {
        "gone a": 1, "lost a": 0, "hangs a": 0, "unseen a": 0
    }  # fmt: skip
    assert named("farrier_gpus", found) == {"": 7}


def test_errors_of_memory_are_counted_once() -> None:
    """A GPU that tells its memories apart has no sum beside them: sum() would count twice."""
    both = tuple(
        EccCount(kind="corrected", scope="volatile", memory=memory, count=number)
        for number, memory in enumerate(MEMORIES, 5)
    )
    one = EccCount(kind="uncorrected", scope="volatile", memory="all", count=9)
    device = Gpu(uuid="a", index=0, up=True, ecc_errors=(*both, one))
    found = of(status_of(gpus=Gpus(count=1, devices=(device,))))
    assert named("farrier_gpu_ecc_errors_total", found) == {
        "corrected dram a": 6, "corrected sram a": 7, "uncorrected all a": 9
    }  # fmt: skip
    assert named("farrier_gpu_ecc_lifetime_errors_total", found) == {}


def test_a_problem_of_the_fabric_that_has_no_sample_otherwise_has_one_while_it_is_there() -> None:
    fabric = Fabric(state="completed", status=0, problems=("route_recovery", "no_partition"))
    device = Gpu(uuid="a", index=0, up=True, fabric=fabric)
    found = named(
        "farrier_gpu_fabric_problem", of(status_of(gpus=Gpus(count=1, devices=(device,))))
    )
    assert {key for key, value in found.items() if value} == {
        "no_partition a", "route_recovery a"
    }  # fmt: skip
    assert len(found) == len(links.FABRIC_PROBLEMS) + 1


def test_what_the_driver_can_say_of_the_fabric_and_of_recovery_has_a_label() -> None:
    every_fault = 0b10_10_0000_01_01_01_01
    assert set(fabric_readings.problems(every_fault)) == set(links.FABRIC_PROBLEMS)
    assert set(fabric_readings.STATES.values()) == set(links.FABRIC_STATES)
    assert (*fabric_readings.ACTIONS.values(), "unknown") == ecc.RECOVERY_ACTIONS


def test_without_nvml_it_is_not_known_how_many_gpus_there_are() -> None:
    lost = Gpu(uuid="a", index=3, up=False, problem="gone")
    found = of(status_of(gpus=Gpus(count=None, devices=(lost,))))
    assert named("farrier_gpus", found) == {}
    assert named("farrier_gpu_up", found) == {"a": 0}


@pytest.mark.parametrize("action", ["gpu_reset", "of_tomorrow"])
def test_one_recovery_action_is_1(action: str) -> None:
    device = Gpu(uuid="a", index=0, up=True, recovery_action=action)
    found = named(
        "farrier_gpu_recovery_action", of(status_of(gpus=Gpus(count=1, devices=(device,))))
    )
    wanted = "gpu_reset a" if action == "gpu_reset" else "unknown a"
    assert {key for key, value in found.items() if value} == {wanted}


def test_xids_of_gpus_that_nobody_can_name_add_up() -> None:
    def one(bus: str, count: int, at: float) -> Xid:
        return Xid(uuid="", xid=79, count=count, last_at=at, pci_bus_id=bus)

    found = of(status_of(xids=(one("a", 2, 9.0), one("b", 3, 7.0))))
    assert named("farrier_gpu_xid_errors_total", found) == {" 79": 5}
    assert named("farrier_gpu_xid_last_timestamp_seconds", found) == {" 79": 9.0}


def test_processes_of_which_it_is_not_known_whose_they_are_are_not_called_unmanaged() -> None:
    def process(managed: bool | None) -> GpuProcess:
        return GpuProcess(pid=1, managed=managed)

    def device(uuid: str, processes: tuple[GpuProcess, ...] | None) -> Gpu:
        return Gpu(uuid=uuid, index=0, up=True, processes=processes)

    devices = (
        device("a", (process(False), process(True), process(None))),
        device("b", ()),
        device("c", None),
    )
    found = of(status_of(gpus=Gpus(count=3, devices=devices)))
    assert named("farrier_gpu_unmanaged_processes", found) == {"a": 1, "b": 0}


@pytest.mark.parametrize(
    ("nvml", "up", "problem", "released"),
    [
        (Nvml(workers=1), 1, None, 0),
        (Nvml(workers=1, kind="mismatch"), 0, "mismatch", 0),
        (Nvml(workers=1, kind="released", released_until_at=9.0), 0, "released", 1),
        (Nvml(workers=0, kind="no_library"), 0, "no_library", 0),
        (Nvml(), None, None, None),  # no worker was started yet
    ],
)
def test_how_the_worker_fares(
    nvml: Nvml, up: int | None, problem: str | None, released: int | None
) -> None:
    found = of(status_of(nvml=nvml))
    assert found.get(("farrier_nvml_up", ())) == up
    assert found.get(("farrier_nvml_released", ())) == released
    problems = named("farrier_nvml_problem", found)
    assert [kind for kind, value in problems.items() if value] == ([problem] if problem else [])
    assert found["farrier_nvml_workers_started_total", ()] == nvml.workers


def test_a_reason_is_told_once_and_who_is_held_back() -> None:
    reason = Reason(
        rule="gpu-lost", state="unhealthy", text="", next="", since_at=1.0, gpu="a",
        held_back="nobody else is ready",
    )  # fmt: skip
    ill = Verdict(state="unhealthy", reasons=(reason,))
    health = Health(host=ill, gpus={"a": ill}, replicas={"r": ill, "s": Verdict(state="healthy")})
    found = of(status_of(health=health))
    assert named("farrier_health_reason", found) == {" gpu-lost unhealthy a": 1}
    assert named("farrier_health_drain_held_back", found) == {"r": 1, "s": 0}
    assert named("farrier_host_verdict", found) == {
        "unhealthy": 1, "healthy": 0, "degraded": 0, "unknown": 0
    }  # fmt: skip


def test_requests_as_nginx_told_them() -> None:
    found = of(status_of(), Extra(requests=requests(1), proc=NOWHERE))
    assert named("llm_requests_total", found) == {
        f"{code} qwen3-32b chat-0": count for code, count in (("200", 1000), ("429", 3), ("502", 1))
    }
    assert named("llm_request_duration_seconds_bucket", found) == {
        f"{bound} qwen3-32b chat-0": count
        for bound, count in (
            ("0.1", 0),
            ("1.0", 200),
            ("10.0", 900),
            ("60.0", 1000),
            ("+Inf", 1001),
        )
    }
    assert named("llm_request_duration_seconds_count", found) == {"qwen3-32b chat-0": 1001}
    assert named("llm_time_to_first_byte_seconds_sum", found) == {"qwen3-32b chat-0": 98.75}
