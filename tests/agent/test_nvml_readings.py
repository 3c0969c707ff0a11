"""Readings of a GPU by subject, on the fake NVML: what makes each of them special."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from farrier_agent.gpus import (
    ClockEvent,
    EccCount,
    Fabric,
    Gpu,
    GpuProcess,
    MigDevice,
    NvLink,
    RemappedRows,
)

from tests.agent.nvml_reading import Reader


@pytest.mark.parametrize("name", ["usage", "limit"])
def test_a_field_value_in_error_is_not_replaced_by_an_older_call(
    read_nvml: Reader, name: str
) -> None:
    """It would answer something else: the mean over a second for the power now."""
    number = {"usage": 186, "limit": 190}[name]
    (answer,) = read_nvml(f"0.fv.{number} err:999")
    assert answer.gpu.power_watts == (None if name == "usage" else 76.5)
    assert answer.gpu.power_limit_watts == (None if name == "limit" else 700.0)


def test_texts_that_are_none_are_absent(read_nvml: Reader) -> None:
    """Also those that the binding cannot decode."""
    (answer,) = read_nvml("0.serial \xff\xfe;0.name \x01\x02;0.vbios caf\xc3\xa9;0.gsp \xff\xfe")
    gpu = answer.gpu
    assert gpu.up
    texts = (gpu.serial, gpu.name, gpu.vbios_version, gpu.gsp_firmware_version)
    assert texts == (None, None, None, None)
    assert answer.all.invalid_total == {
        "name": 1,
        "vbios_version": 1,
        "serial": 1,
        "gsp_firmware_version": 1,
    }


def events(answer: Gpu) -> Mapping[str, ClockEvent]:
    return {event.reason: event for event in answer.clock_events}


def test_clock_events_are_told_as_far_as_the_gpu_can(read_nvml: Reader) -> None:
    plain, few, none, old = read_nvml(
        "0.clocks.reasons 0x24;0.fv.269 1500000000",
        "0.clocks.supported 0x4;0.clocks.reasons 0x24",
        "0.clocks.supported N/A;0.clocks.reasons 0",
        "driver 570.86;0.clocks.reasons 0x20;0.fv.269 808334905;0.fv.74 2000000000",
        fresh=1,
    )
    told = events(plain.gpu)
    assert told["sw_power_cap"] == ClockEvent(reason="sw_power_cap", active=True, seconds_total=0.0)
    assert told["sw_thermal"] == ClockEvent(reason="sw_thermal", active=True, seconds_total=1.5)
    assert told["hw_slowdown"] == ClockEvent(reason="hw_slowdown", active=False)
    # supported or not: an active one is told; what is neither is not called inactive
    assert [event.reason for event in few.gpu.clock_events if event.active is not None] == [
        "sw_power_cap",
        "sw_thermal",
    ]
    assert [event.active for event in none.gpu.clock_events][:9] == [False] * 9
    # 269 is the limit of a power profile there
    assert events(old.gpu)["sw_thermal"] == ClockEvent(reason="sw_thermal", active=True)
    assert events(old.gpu)["sw_power_cap"].seconds_total == 2.0
    assert old.all.invalid_total == {}


def test_clock_events_of_older_libraries_have_their_older_name(read_nvml: Reader) -> None:
    (answer,) = read_nvml(
        "err.nvmlDeviceGetCurrentClocksEventReasons 13;0.clocks.reasons 0x8;"
        "err.nvmlDeviceGetSupportedClocksEventReasons 13"
    )
    assert events(answer.gpu)["hw_slowdown"].active is True


def test_a_counter_in_too_few_bits_is_absent(read_nvml: Reader) -> None:
    """32 bits of bytes wrap within a tick."""
    first, second = read_nvml(*["0.fv.197 ui:4294967295;0.fv.74 ui:7"] * 2)
    for answer in (first, second):
        assert answer.gpu.pcie_transmit_bytes_total is None
        assert answer.gpu.pcie_receive_bytes_total == 0
        assert events(answer.gpu)["sw_power_cap"].seconds_total is None
        assert answer.all.invalid_total == {}


def test_memory_without_a_sensor_has_no_temperature_of_zero(read_nvml: Reader) -> None:
    (answer,) = read_nvml("0.temperature.memory 0")
    assert answer.gpu.memory_temperature_celsius is None
    assert answer.all.invalid_total == {}


def test_temperatures_below_zero_and_from_older_libraries(read_nvml: Reader) -> None:
    cold, old = read_nvml("0.temperature -5", "err.nvmlDeviceGetTemperatureV 13", fresh=1)
    assert cold.gpu.temperature_celsius == -5
    assert old.gpu.temperature_celsius == 31


def test_errors_of_memory_by_place_or_together(read_nvml: Reader) -> None:
    places, old, half = read_nvml(
        "0.ecc.uncorrected.volatile.sram 3",
        "".join(
            f"0.ecc.{kind}.{scope}.{place} N/A;"
            for kind in ("corrected", "uncorrected")
            for scope in ("volatile", "aggregate")
            for place in ("dram", "sram")
        )
        + "0.ecc.corrected.aggregate 9",
        "0.ecc.uncorrected.volatile.sram N/A;0.ecc.uncorrected.volatile 5",
        fresh=1,
    )
    sram = EccCount(kind="uncorrected", scope="volatile", memory="sram", count=3)
    assert sram in places.gpu.ecc_errors
    assert len(places.gpu.ecc_errors) == 8
    assert not [one for one in places.gpu.ecc_errors if one.memory == "all"]
    assert {(one.kind, one.scope, one.memory, one.count) for one in old.gpu.ecc_errors} == {
        ("corrected", "volatile", "all", 0),
        ("corrected", "aggregate", "all", 9),
        ("uncorrected", "volatile", "all", 0),
        ("uncorrected", "aggregate", "all", 0),
    }
    volatile = [one for one in half.gpu.ecc_errors if one.scope == "volatile"]
    assert [one.memory for one in volatile if one.kind == "uncorrected"] == ["dram"]


def test_rows_that_were_remapped(read_nvml: Reader) -> None:
    fields, call = read_nvml(
        "0.remapped.corrected 5;0.remapped.uncorrected 6;0.remapped.pending 1;0.remapped.failed 1",
        "0.remapped.uncorrected 6;0.fv.142 N/A;0.fv.143 N/A;0.fv.144 N/A;0.fv.145 N/A",
        fresh=1,
    )
    rows = RemappedRows(corrected=5, uncorrected=6, pending=True, failed=True)
    assert fields.gpu.remapped_rows == rows
    assert fields.times("nvmlDeviceGetRemappedRows") == 0
    assert call.gpu.remapped_rows == RemappedRows(
        corrected=0, uncorrected=6, pending=False, failed=False
    )


@pytest.mark.parametrize(
    ("state", "fabric"),
    [
        ("0.fabric.state 1", Fabric(state="not_started", status=0)),
        ("0.fabric.state 2;0.fabric.status 27", Fabric(state="in_progress", status=27)),
        ("0.fabric.status 999", Fabric(state="completed", status=999)),
        ("0.fabric.clique 3", Fabric(state="completed", status=0, clique=3)),
        (
            "0.fabric.health 0x511",
            Fabric(
                state="completed",
                status=0,
                clique=0,
                problems=("degraded_bandwidth", "route_unhealthy", "insufficient_nvlinks"),
            ),
        ),
        (
            "0.fabric.health 0x1aa;0.fabric.summary 3",
            Fabric(state="completed", status=0, clique=0, problems=("limited_capacity",)),
        ),
    ],
)
def test_the_fabric_in_words(read_nvml: Reader, state: str, fabric: Fabric) -> None:
    (answer,) = read_nvml(state)
    assert answer.gpu.fabric == fabric


def test_a_library_that_knows_no_structure_of_the_fabric_is_asked_once_for_each(
    read_nvml: Reader,
) -> None:
    first, second = read_nvml(*["err.nvmlDeviceGetGpuFabricInfoV 25"] * 2)
    assert first.gpu.fabric is None
    assert first.times("nvmlDeviceGetGpuFabricInfoV") == 2
    assert second.times("nvmlDeviceGetGpuFabricInfoV") == 0
    assert first.all.problems == ()


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (0, "none"),
        (1, "gpu_reset"),
        (2, "node_reboot"),
        (3, "drain_p2p"),
        (4, "drain_and_reset"),
        (5, "imex_domain"),
        (6, "bus_reset"),
        (7, "system_reboot"),
        (8, "unknown"),
        (255, "unknown"),
        (256, None),
    ],
)
def test_recovery_actions_in_words(read_nvml: Reader, code: int, action: str | None) -> None:
    (answer,) = read_nvml(f"0.recovery {code}")
    assert answer.gpu.recovery_action == action


def test_links_up_down_and_in_trouble(read_nvml: Reader) -> None:
    (answer,) = read_nvml(
        "0.nvlinks 5;0.fv.165.1 0;0.fv.165.2 2;0.fv.165.3 3;0.fv.165.4 N/A;0.fv.161.4 N/A;"
        "0.fv.162.4 N/A;0.fv.163.4 N/A;0.fv.161.0 4;0.fv.163.0 6"
    )
    fine = {"replay_errors_total": 0, "recovery_errors_total": 0, "crc_errors_total": 0}
    assert answer.gpu.nvlinks == (
        NvLink(link=0, up=True, replay_errors_total=4, recovery_errors_total=0, crc_errors_total=6),
        NvLink(link=1, up=False, **fine),
        NvLink(link=2, up=True, **fine),
        NvLink(link=3, up=None, **fine),
    )


def test_links_of_blackwell(read_nvml: Reader) -> None:
    """Other counters, and bytes by link instead of the sums."""
    state = "0.nvlinks 2;0.fv.138.4294967295 N/A;0.fv.139.4294967295 N/A;"
    for link in (0, 1):
        state += "".join(f"0.fv.{old}.{link} N/A;" for old in (161, 162, 163))
        state += f"0.fv.202.{link} {100 + link};0.fv.204.{link} {200 + link};"
        state += f"0.fv.215.{link} 1;0.fv.219.{link} 2;0.fv.221.{link} 3;"
    (answer,) = read_nvml(state)
    assert answer.all.problems == ()
    assert answer.gpu.nvlink_transmit_bytes_total == 201
    assert answer.gpu.nvlink_receive_bytes_total == 401
    assert answer.gpu.nvlinks[1] == NvLink(
        link=1,
        up=True,
        recovery_errors_total=1,
        effective_errors_total=2,
        symbol_errors_total=3,
    )


def test_mig_devices(read_nvml: Reader) -> None:
    state = (
        "0.mig.mode 1;0.mig.0.gi 7;0.mig.0.ci 0;0.mig.0.uuid MIG-a;"
        "0.mig.0.name NVIDIA H200 MIG 1g.18gb;0.mig.0.memory.total 18000;"
        "0.mig.0.memory.used 500;0.mig.0.memory.reserved 100;"
        "0.mig.3.gi 9;0.mig.3.ci 1;0.mig.3.uuid MIG-b;0.mig.3.name MIG;0.mig.3.memory.total N/A"
    )
    (answer,) = read_nvml(state)
    assert answer.all.problems == ()
    assert answer.gpu.mig_enabled is True
    first = MigDevice(
        uuid="MIG-a",
        gpu_instance=7,
        compute_instance=0,
        profile="1g.18gb",
        memory_total_bytes=18000,
        memory_used_bytes=500,
    )
    assert answer.gpu.mig_devices[0] == first
    second = answer.gpu.mig_devices[1]
    assert (second.uuid, second.gpu_instance, second.profile) == ("MIG-b", 9, None)
    assert len(answer.gpu.mig_devices) == 2


def test_processes_of_every_kind(read_nvml: Reader) -> None:
    (answer,) = read_nvml(
        "0.processes 4711:1000,4712,77:30;0.processes.graphics 900:5,4711:1000;"
        "0.processes.mps 77:30"
    )
    assert answer.gpu.processes == (
        GpuProcess(pid=77, kind="mps", memory_bytes=30),
        GpuProcess(pid=900, kind="graphics", memory_bytes=5),
        GpuProcess(pid=4711, memory_bytes=1000),
        GpuProcess(pid=4712),
    )
    (nobody,) = read_nvml("count 1")
    assert nobody.gpu.processes == ()


def test_more_processes_than_one_call_has_room_for(read_nvml: Reader) -> None:
    pids = [str(pid) for pid in range(1000, 1100)]
    (answer,) = read_nvml("0.processes " + ",".join(pids))
    assert answer.gpu.processes is not None
    assert [process.pid for process in answer.gpu.processes] == [int(pid) for pid in pids]
    assert answer.times("nvmlDeviceGetComputeRunningProcesses") == 2


def test_a_list_of_processes_that_never_fits_is_told(read_nvml: Reader) -> None:
    (answer,) = read_nvml("err.nvmlDeviceGetComputeRunningProcesses 7")
    assert answer.gpu.processes is None
    assert answer.all.problems == (
        "GPU 0: nvmlDeviceGetComputeRunningProcesses: Insufficient Size",
    )
