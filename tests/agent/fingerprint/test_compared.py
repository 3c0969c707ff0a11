"""A fingerprint is compared by what both sides could read, and by nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from farrier_agent.fingerprint.compared import differences
from farrier_agent.fingerprint.keeping import FingerprintFile, FingerprintFileError
from farrier_agent.fingerprint.made import Fingerprint, GpuPrint, Speed, make
from hypothesis import given
from hypothesis import strategies as st

from tests.agent.full_status import full_status

GPU = GpuPrint(
    uuid="GPU-a", index=0, name="H200", vbios_version="1", pcie_width=16, nvlinks=18, nvlinks_up=18
)
ONE = Fingerprint(
    host="gpu01", at=1.0, agent="1", kernel="6.1", driver_version="550.1", gpus=(GPU,)
)


def changed(**fields: Any) -> Fingerprint:
    return msgspec.structs.replace(ONE, **fields)


def of_gpu(**fields: Any) -> Fingerprint:
    return changed(gpus=(msgspec.structs.replace(GPU, **fields),))


@pytest.mark.parametrize(
    ("now", "kind", "said"),
    [
        (changed(kernel="6.2"), "changed", "kernel: 6.2, it was 6.1"),
        (changed(driver_version="550.2"), "changed", "driver version: 550.2, it was 550.1"),
        (changed(gpus=()), "missing", "GPU 0 (GPU-a): does not answer, it was H200"),
        (changed(gpus=None), "unknown", "GPUs: not to be read, it was 1"),
        (of_gpu(vbios_version="2"), "changed", "GPU 0 (GPU-a) vbios version: 2, it was 1"),
        (of_gpu(pcie_width=8), "changed", "GPU 0 (GPU-a) pcie width: 8, it was 16"),
        (of_gpu(nvlinks_up=17), "changed", "GPU 0 (GPU-a) NVLinks that are up: 17, it was 18"),
    ],
)
def test_each_difference_is_said_once(now: Fingerprint, kind: str, said: str) -> None:
    (found,) = differences(ONE, now)
    assert (found.kind, str(found)) == (kind, said)


def test_what_could_not_be_read_is_not_compared() -> None:
    assert differences(ONE, changed(kernel=None, driver_version=None)) == ()
    assert differences(ONE, of_gpu(vbios_version=None, pcie_width=None)) == ()
    assert differences(changed(gpus=None), ONE) == ()


def test_another_gpu_in_its_place_is_one_missing_and_one_new() -> None:
    found = differences(ONE, of_gpu(uuid="GPU-b", serial="77"))
    assert [(one.kind, one.gpu) for one in found] == [("missing", "GPU-a"), ("new", "GPU-b")]
    assert "serial 77" in str(found[1])


SPEED = Speed(
    replica="tiny",
    model="m",
    engine="vllm",
    tokens_per_second=100.0,
    first_token_seconds=0.2,
    requests=9,
    seconds=20.0,
)


def speed(**fields: Any) -> Speed:
    return msgspec.structs.replace(SPEED, **fields)


@pytest.mark.parametrize(
    ("now", "found"),
    [
        (speed(tokens_per_second=91.0), []),
        (speed(tokens_per_second=89.0), ["replica tiny tokens per second: 89.0, it was 100.0"]),
        (speed(first_token_seconds=0.29), []),
        (
            speed(first_token_seconds=0.31),
            ["replica tiny seconds to the first token: 0.310, it was 0.200"],
        ),
        (speed(tokens_per_second=10.0, others=1), []),
        (speed(tokens_per_second=10.0, model="another"), []),
        (speed(tokens_per_second=10.0, replica="other"), []),
    ],
)
def test_speeds_are_compared_where_nobody_else_was_served(now: Speed, found: list[str]) -> None:
    before, after = changed(speeds=(speed(),)), changed(speeds=(now,))
    assert list(map(str, differences(before, after))) == found


def test_a_full_status_has_a_whole_fingerprint_and_equals_itself() -> None:
    status = full_status()
    one = make(status, kernel="6.1", boot_id="b")
    assert one.gpus is not None
    assert status.gpus is not None
    assert [gpu.uuid for gpu in one.gpus] == [gpu.uuid for gpu in status.gpus.devices if gpu.up]
    assert all(gpu.serial and gpu.vbios_version and gpu.power_limit_watts for gpu in one.gpus)
    assert differences(one, one) == ()


@given(st.binary(max_size=200))
def test_garbage_in_the_file_is_said_and_never_taken(tmp_path_factory: Any, data: bytes) -> None:
    path = tmp_path_factory.mktemp("print") / "fingerprint.json"
    path.write_bytes(data)
    with pytest.raises(FingerprintFileError, match="not a fingerprint"):
        FingerprintFile(path).load()


def test_what_is_kept_comes_back_and_a_newer_schema_is_refused(tmp_path: Any) -> None:
    file = FingerprintFile(tmp_path / "state" / "fingerprint.json")
    assert file.load() is None
    file.save(ONE)
    assert file.load() == ONE
    file.save(changed(schema=2))
    with pytest.raises(FingerprintFileError, match="newer than this agent's"):
        file.load()
