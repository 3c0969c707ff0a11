"""A session with NVML: what it calls and when, who is lost, and when nothing works at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from farrier_agent.gpus import (
    EccCount,
    Fabric,
    Gpu,
    GpuProcess,
)

from tests.agent.nvml_reading import Reader


def test_a_tick_costs_few_calls(read_nvml: Reader) -> None:
    """18 for each GPU, one for the host. What takes 20 ms by design is never called."""
    first, second, third = read_nvml(*["count 2"] * 3)
    assert len(second.calls) == len(third.calls) == 1 + 2 * 18
    assert second.times("nvmlDeviceGetFieldValues") == 2
    assert second.gpu == first.gpu
    assert len(first.calls) < 150
    assert not first.times("nvmlDeviceGetPcieThroughput")
    assert not first.times("nvmlDeviceGetPowerUsage"), "the field is there"


def test_what_is_not_supported_is_asked_once(read_nvml: Reader) -> None:
    state = "all.utilization.gpu N/A;all.fabric.state N/A;all.power.usage N/A;all.clock.sm N/A"
    first, second = read_nvml(state, state)
    for function in ("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetPowerUsage"):
        assert (first.times(function), second.times(function)) == (1, 0)
    assert first.times("nvmlDeviceGetGpuFabricInfoV") == 2, "by two versions of its structure"
    assert second.times("nvmlDeviceGetGpuFabricInfoV") == 0
    assert second.times("nvmlDeviceGetClockInfo") == 2, "the other clocks are there"
    assert second.gpu == first.gpu


def test_what_was_not_supported_is_asked_again_when_gpus_are_enumerated_anew(
    read_nvml: Reader,
) -> None:
    without = "count 1;all.power.usage N/A"
    first, still, other = read_nvml(without, "count 1", "count 2")
    assert first.gpu.power_watts is None
    assert still.gpu.power_watts is None
    assert [gpu.power_watts for gpu in other.all.devices] == [76.5, 76.5]


def test_the_slow_tier_is_carried_along(read_nvml: Reader) -> None:
    before = (
        "0.encoder 10;0.ecc.corrected.volatile.dram 1;0.processes.graphics 900:5;0.temperature 40"
    )
    after = (
        "0.encoder 20;0.ecc.corrected.volatile.dram 2;0.processes.graphics 901:5;0.temperature 50"
    )
    first, second = read_nvml(before, after)
    assert (first.gpu.encoder_ratio, second.gpu.encoder_ratio) == (0.1, 0.1)
    assert second.gpu.ecc_errors == first.gpu.ecc_errors
    assert second.gpu.processes == first.gpu.processes
    assert second.gpu.temperature_celsius == 50
    slow = {"nvmlDeviceGetEncoderUtilization", "nvmlDeviceGetEccMode", "nvmlDeviceGetMigMode"}
    assert not slow & {name for name, _ in second.calls}
    _, second = read_nvml(before, after, slow_every=0.0)
    assert second.gpu.encoder_ratio == 0.2
    assert slow <= {name for name, _ in second.calls}


def test_what_health_needs_is_in_every_reading(read_nvml: Reader) -> None:
    quiet, bad = read_nvml(
        "count 1",
        "0.remapped.failed 1;0.recovery 1;0.fabric.state 2;0.persistence 0;0.sram.threshold 1;"
        "0.ecc.uncorrected.volatile.dram 1;0.clocks.reasons 0x80;0.temperature.margin 3;"
        "0.fv.165.4 0;0.pcie.width 8;0.processes 4711:1000",
    )
    assert quiet.gpu.remapped_rows is not None
    gpu = bad.gpu
    assert gpu.remapped_rows is not None
    assert (quiet.gpu.remapped_rows.failed, gpu.remapped_rows.failed) == (False, True)
    assert gpu.recovery_action == "gpu_reset"
    assert gpu.fabric == Fabric(state="in_progress", status=0)
    assert gpu.persistence_mode is False
    assert gpu.sram_threshold_exceeded is True
    assert EccCount(kind="uncorrected", scope="volatile", memory="dram", count=1) in gpu.ecc_errors
    assert [event.reason for event in gpu.clock_events if event.active] == ["hw_power_brake"]
    assert gpu.temperature_margin_celsius == 3
    assert [link.link for link in gpu.nvlinks if not link.up] == [4]
    assert gpu.pcie_width == 8
    assert gpu.processes == (GpuProcess(pid=4711, memory_bytes=1000),)


def test_a_lost_gpu_keeps_its_identity_and_nothing_else(read_nvml: Reader) -> None:
    before, lost, still, back = read_nvml("count 2", *["count 2;1.lost 1"] * 2, "count 2")
    assert [gpu.up for gpu in before.all.devices] == [True, True]
    for answer in (lost, still):
        assert answer.all.count == 2
        assert answer.all.devices[0].temperature_celsius == 31
        was = before.all.devices[1]
        assert answer.all.devices[1] == Gpu(
            uuid=was.uuid,
            index=1,
            up=False,
            problem="lost",
            problem_detail=answer.all.devices[1].problem_detail,
            name="NVIDIA H200",
            pci_bus_id="00000000:20:00.0",
            serial="1650000000000",
            vbios_version=was.vbios_version,
            inforom_version=was.inforom_version,
            gsp_firmware_version=was.gsp_firmware_version,
            architecture="Hopper",
            compute_capability="9.0",
            minor_number=1,
        )
        assert "GPU is lost" in (answer.all.devices[1].problem_detail or "")
    assert back.all == before.all


def test_a_lost_gpu_is_left_alone_for_a_while(read_nvml: Reader) -> None:
    _, lost, later = read_nvml("count 2", *["count 2;1.lost 1"] * 2, lost_retry=3600.0)
    assert {name for name, index in lost.calls if index == 1} == {"nvmlDeviceGetFieldValues"}
    assert not [name for name, index in later.calls if index == 1]
    assert later.all.devices[1].problem == "lost"


def test_a_gpu_that_only_one_field_value_calls_lost_is_lost(read_nvml: Reader) -> None:
    (_, answer) = read_nvml("count 1", "0.fv.230 err:15")
    assert answer.gpu.problem == "lost"


def test_a_gpu_that_answers_nothing_any_more_is_lost(read_nvml: Reader) -> None:
    """As "Unable to determine the device handle: Unknown Error" of nvidia-smi."""
    _, answer, back = read_nvml("count 2", "count 2;err.*.1 999", "count 2")
    sick = answer.all.devices[1]
    assert (sick.up, sick.problem, sick.temperature_celsius) == (False, "lost", None)
    assert "no call is answered any more" in (sick.problem_detail or "")
    assert "Unknown Error" in (sick.problem_detail or "")
    assert answer.all.devices[0].up
    assert back.all.devices[1].up


def test_a_gpu_that_was_lost_from_the_start_is_told(read_nvml: Reader) -> None:
    (answer,) = read_nvml("count 2;0.lost 1")
    assert [gpu.index for gpu in answer.all.devices] == [1]
    assert answer.all.problems == ("GPU 0 is lost, and its UUID is not known",)


def test_a_gpu_without_a_uuid_is_told(read_nvml: Reader) -> None:
    (answer,) = read_nvml("count 2;err.nvmlDeviceGetUUID.0 999")
    assert [gpu.index for gpu in answer.all.devices] == [1]
    assert answer.all.problems == (
        "GPU 0: nvmlDeviceGetUUID: Unknown Error",
        "GPU 0 does not give its UUID",
    )


def test_a_gpu_that_vanishes_gives_its_index_to_the_next(read_nvml: Reader) -> None:
    before, after = read_nvml("count 2", "count 2;0.gone 1")
    first, second = before.all.devices
    assert [(gpu.uuid, gpu.index) for gpu in after.all.devices] == [(second.uuid, 0)]
    assert first.uuid != second.uuid
    assert after.all.count == 1


@pytest.mark.parametrize(
    ("state", "kind", "words", "call"),
    [
        ("err.nvmlInit 9", "not_loaded", "modprobe nvidia", "nvmlInit"),
        ("err.nvmlInit 4", "no_permission", "/dev/nvidiactl", "nvmlInit"),
        ("err.nvmlInit 12", "no_library", "nvml_library in agent.toml", "nvmlInit"),
        ("err.nvmlInit 18", "mismatch", "reboot the host", "nvmlInit"),
        ("err.nvmlInit 999", "failed", "nvmlInit: Unknown Error", "nvmlInit"),
        ("err.nvmlDeviceGetCount 18", "mismatch", "reboot the host", "nvmlDeviceGetCount"),
        ("err.nvmlDeviceGetCount 15", "failed", "GPU is lost", "nvmlDeviceGetCount"),
        ("err.nvmlDeviceGetName.0 18", "mismatch", "reboot the host", "nvmlDeviceGetName"),
        ("err.nvmlDeviceGetFieldValues 9", "not_loaded", "lsmod", "nvmlDeviceGetFieldValues"),
        ("err.nvmlDeviceGetPersistenceMode 1", "failed", "", "nvmlDeviceGetPersistenceMode"),
        ("err.nvmlSystemGetDriverVersion 1", "failed", "", "nvmlSystemGetDriverVersion"),
    ],
)
def test_nvml_as_a_whole_is_of_no_use_and_comes_back(
    read_nvml: Reader, state: str, kind: str, words: str, call: str
) -> None:
    failed, again = read_nvml(state, "count 2")
    assert (failed.gpus, failed.kind, failed.call) == (None, kind, call)
    assert words in failed.words
    assert failed.words.startswith(f"{call}: ")
    assert again.all.count == len(again.all.devices) == 2


def test_a_version_that_cannot_be_had_costs_nothing_else(read_nvml: Reader) -> None:
    (answer,) = read_nvml("err.nvmlSystemGetNVMLVersion 999;err.nvmlSystemGetCudaDriverVersion 13")
    assert (answer.all.nvml_version, answer.all.cuda_version) == (None, None)
    assert answer.all.driver_version == "580.95.05"
    assert answer.all.problems == ("the host: nvmlSystemGetNVMLVersion: Unknown Error",)
    assert answer.gpu.up


def test_no_gpu_at_all_is_a_count_of_zero(read_nvml: Reader) -> None:
    (answer,) = read_nvml("count 0")
    assert (answer.all.count, answer.all.devices) == (0, ())


def test_a_library_that_is_not_there_is_named(tmp_path: Path) -> None:
    (answer,) = Reader(tmp_path / "libnvidia-ml.so.1", tmp_path)("count 1")
    assert answer.kind == "no_library"
    assert str(tmp_path / "libnvidia-ml.so.1") in answer.words


def test_a_static_value_that_failed_is_asked_again(read_nvml: Reader) -> None:
    failing = "err.nvmlDeviceGetSerial 999"
    first, second, third, fourth = read_nvml(failing, *["count 1"] * 3, slow_every=0.0)
    assert first.all.problems == ("GPU 0: nvmlDeviceGetSerial: Unknown Error",)
    assert first.gpu.serial is None
    assert second.all.problems == ()
    assert third.gpu.serial == "1650000000000"
    assert fourth.times("nvmlDeviceGetSerial") == 0


def test_a_gpu_that_is_switched_to_mig_is_asked_again_what_it_supports(read_nvml: Reader) -> None:
    """MIG takes the utilisation away; without it, it is there again."""
    mig = "0.mig.mode 1;0.mig.0.gi 7;err.nvmlDeviceGetUtilizationRates 3"
    answers = read_nvml("count 1", mig, mig, *["0.mig.mode 0"] * 2, slow_every=0.0)
    assert [answer.gpu.mig_enabled for answer in answers] == [False, True, True, False, False]
    use = [answer.gpu.utilization_ratio for answer in answers]
    assert (use[0], use[2], use[4]) == (0.0, None, 0.0)


STREAM = """
import sys
from farrier_agent.nvml.session import Session
calls = []
one = Session(sys.argv[1], calling=lambda *call: calls.append(call))
def touched():
    found = sorted({index for _, index in calls if index >= 0})
    calls.clear()
    return found
print(one.begin().count, one.known(), touched())
for gpu in one.readings([2, 0, 3, 1], skip={3}): print(gpu.index, touched())
print([known.index for known in one.known()], one.known()[0].uuid, one.known()[0].pci_bus_id)
print([gpu.index for gpu in one.readings([3], skip=())], touched())
one.close()
print(one.nvml, one.known(), one.end().count)
seen = []
def calling(function, index):
    if function == "nvmlDeviceGetName": seen.append([known.index for known in two.known()])
two = Session(sys.argv[1], calling=calling)
two.read()
print(seen)
"""


def test_gpus_come_one_by_one_in_the_order_asked_for(nvml_library: Path, tmp_path: Path) -> None:
    """Those to skip are not touched; who a GPU is is known before anything else is asked of it."""
    state = tmp_path / "state"
    state.write_text("count 4\n")
    result = subprocess.run(
        [sys.executable, "-c", STREAM, nvml_library],
        env={"FAKE_NVML_STATE": str(state)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout.splitlines() == [
        "4 () []",
        "2 [2]",
        "0 [0]",
        "1 [1]",
        "[2, 0, 1] GPU-fa4e0000-0000-4000-8000-000000000002 00000000:28:00.0",
        "[3] [3]",
        "None () 4",
        "[[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]",
    ], result.stderr
