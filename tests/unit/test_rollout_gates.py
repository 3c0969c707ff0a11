"""The gates of a host: passed, failed, and not to be judged. No host."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from farrier_agent.fingerprint.made import Fingerprint, GpuPrint, Speed

from farrier.rollout.gates import failed, judge, judge_serving, unjudged
from farrier.rollout.records import GateRecord, HostRecord, ReplicaRecord
from farrier.rollout.seen import HostSeen
from tests.unit.test_rollout_plan import replica

GPU = GpuPrint(
    uuid="GPU-0",
    index=0,
    pcie_width=16,
    pcie_max_generation=5,
    nvlinks=18,
    nvlinks_up=18,
    power_limit_watts=700.0,
    sm_max_clock_hertz=1_980_000_000,
    memory_max_clock_hertz=2_619_000_000,
    ecc_enabled=True,
)
SPEED = Speed(
    replica="tiny",
    model="tiny",
    engine="vllm",
    tokens_per_second=100.0,
    first_token_seconds=0.05,
    requests=8,
    seconds=20.0,
)
BEFORE = Fingerprint(
    host="gpu01",
    at=1.0,
    agent="1",
    kernel="6.1.0-40",
    driver_version="580.95.05",
    gpus=(GPU, msgspec.structs.replace(GPU, uuid="GPU-1", index=1)),
    speeds=(SPEED,),
)
UP = {"nvidia-fabricmanager.service": "active", "nvidia-persistenced.service": "failed"}


def gates(now: Fingerprint, before: Fingerprint = BEFORE, **given: Any) -> dict[str, GateRecord]:
    options: dict[str, Any] = {"kind": "driver", "driver_wanted": "590.48.01", "units": UP}
    found = judge(before, now, **(options | {"tolerance": 0.1} | given))
    return {one.name: one for one in found}


def now(gpu: dict[str, Any] | None = None, **fields: Any) -> Fingerprint:
    """As before, with the wanted driver; *gpu* is what is otherwise with the second GPU."""
    gpus = (GPU, msgspec.structs.replace(GPU, **({"uuid": "GPU-1", "index": 1} | (gpu or {}))))
    return msgspec.structs.replace(
        BEFORE, **({"driver_version": "590.48.01", "gpus": gpus} | fields)
    )


def slower(**fields: Any) -> Fingerprint:
    return now(speeds=(msgspec.structs.replace(SPEED, **fields),))


def test_a_host_that_is_as_before_passes_every_gate() -> None:
    found = gates(now())
    assert set(found) == {
        *("driver", "kernel", "gpus", "fabric-manager", "pcie-width", "pcie-generation"),
        *("nvlink", "ecc", "power-limit", "clocks", "speed", "first-token"),
    }
    assert [one for one in found.values() if one.ok is not True] == []
    assert found["pcie-width"].seen == "x16"
    assert found["nvlink"].seen == "18 of 18 up"
    assert found["clocks"].seen == "1980 and 2619 MHz"
    assert found["speed"].expected == "tiny: at least 90.0 tokens/s"


@pytest.mark.parametrize(
    ("name", "after", "given", "expected", "seen"),
    [
        ("driver", now(driver_version="580.95.05"), {}, "590.48.01", "580.95.05"),
        ("driver", now(driver_version=None), {}, "590.48.01", "cannot be read"),
        ("gpus", now(gpus=None), {}, "2 GPUs", "cannot be read"),
        ("gpus", now(gpus=(GPU,)), {}, "2 GPUs", "1 GPU; without GPU-1"),
        ("gpus", now({"uuid": "GPU-9"}), {}, "2 GPUs", "2 GPUs; without GPU-1; new: GPU-9"),
        (
            "fabric-manager",
            now(),
            {"units": {"nvidia-fabricmanager.service": "failed"}},
            "active",
            "nvidia-fabricmanager.service failed",
        ),
        ("pcie-width", now({"pcie_width": 8}), {}, "GPU 1: x16", "GPU 1 (GPU-1): x8"),
        ("pcie-generation", now({"pcie_max_generation": 3}), {}, "GPU 1: 5", "GPU 1 (GPU-1): 3"),
        (
            "nvlink",
            now({"nvlinks_up": 17}),
            {},
            "GPU 1: 18 of 18 up",
            "GPU 1 (GPU-1): 17 of 18 up",
        ),
        ("ecc", now({"ecc_enabled": False}), {}, "GPU 1: on", "GPU 1 (GPU-1): off"),
        ("ecc", now({"ecc_enabled": None}), {}, "GPU 1: on", "GPU 1 (GPU-1): cannot be read"),
        (
            "power-limit",
            now({"power_limit_watts": 500.0}),
            {},
            "GPU 1: 700 W",
            "GPU 1 (GPU-1): 500 W",
        ),
        (
            "clocks",
            now({"sm_max_clock_hertz": 1_755_000_000}),
            {},
            "GPU 1: 1980 and 2619 MHz",
            "GPU 1 (GPU-1): 1755 and 2619 MHz",
        ),
        (
            "speed",
            slower(tokens_per_second=89.0),
            {},
            "tiny: at least 90.0 tokens/s",
            "89.0 tokens/s",
        ),
        (
            "first-token",
            slower(first_token_seconds=0.2),
            {},
            "tiny: within 0.150 s",
            "0.200 s",
        ),
    ],
)
def test_a_gate_fails(
    name: str, after: Fingerprint, given: dict[str, Any], expected: str, seen: str
) -> None:
    found = gates(after, **given)
    assert found[name] == GateRecord(
        name=name, expected=expected, seen=seen, ok=False, note=found[name].note
    )
    assert {one.name for one in failed(tuple(found.values()))} == {name}


@pytest.mark.parametrize(
    ("names", "before", "after"),
    [
        ({"speed", "first-token"}, BEFORE, now(speeds=())),
        ({"speed", "first-token"}, BEFORE, slower(others=3, tokens_per_second=1.0)),
        ({"speed", "first-token"}, msgspec.structs.replace(BEFORE, speeds=()), now()),
        ({"kernel"}, BEFORE, now(kernel="6.1.0-41")),
        (
            {"pcie-width"},
            msgspec.structs.replace(BEFORE, gpus=(msgspec.structs.replace(GPU, pcie_width=None),)),
            now(gpus=(GPU,)),
        ),
        (
            {"gpus", "pcie-width", "pcie-generation", "nvlink", "ecc", "power-limit", "clocks"},
            msgspec.structs.replace(BEFORE, gpus=None),
            now(),
        ),
    ],
)
def test_what_cannot_be_judged_is_said_and_is_no_pass(
    names: set[str], before: Fingerprint, after: Fingerprint
) -> None:
    found = tuple(gates(after, before).values())
    assert {one.name for one in unjudged(found)} == names
    assert all(one.note for one in unjudged(found))
    assert failed(found) == ()


def test_a_reboot_may_bring_another_driver_and_says_so() -> None:
    found = gates(now(), kind="reboot", driver_wanted=None)
    assert (found["driver"].ok, found["driver"].seen) == (None, "590.48.01")
    assert "told" in found["driver"].note
    same = gates(BEFORE, kind="reboot", driver_wanted=None)
    assert same["driver"].ok is True


def test_a_host_without_a_fabric_has_no_gate_for_it() -> None:
    assert "fabric-manager" not in gates(now(), units={"nginx.service": "active"})


def test_a_tolerance_is_a_share_of_the_speed() -> None:
    assert gates(slower(tokens_per_second=89.0), tolerance=0.2)["speed"].ok is True


@pytest.mark.parametrize(
    ("seen", "bad"),
    [
        (replica(phase="drained"), set()),
        (replica(phase="failed", up=False, reason="exit code 1"), {"warm"}),
        (replica(phase="drained", verdict="unhealthy"), {"verdict"}),
    ],
)
def test_an_engine_has_to_be_warm_and_well(seen: Any, bad: set[str]) -> None:
    record = HostRecord(host="gpu01", batch=0, replicas=[ReplicaRecord(name="tiny", model="tiny")])
    found = judge_serving(record, HostSeen(host="gpu01", replicas=(seen,), verdict="healthy"))
    assert {one.name for one in failed(found)} == bad


def test_a_host_without_a_verdict_is_not_judged() -> None:
    record = HostRecord(host="gpu01", batch=0)
    _, verdict = judge_serving(record, HostSeen(host="gpu01"))
    assert (verdict.ok, verdict.note) == (None, "the agent gave no verdict")
    sick = HostSeen(host="gpu01", verdict="unhealthy", reasons=("XID 79",))
    _, verdict = judge_serving(record, sick)
    assert (verdict.ok, verdict.seen, verdict.note) == (False, "the host unhealthy", "XID 79")
    record.verdict_before = "unhealthy"
    assert judge_serving(record, sick)[1].ok is True
