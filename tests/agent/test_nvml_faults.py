"""Faults of single calls on the fake NVML: what is not supported, and nonsense.

Every fault has its line in a table: what NVML does, and the fields of the GPU that are then absent.
All others have to stay as they are.
"""

from __future__ import annotations

import random

import pytest
from farrier_agent.gpus import Gpu

from tests.agent.nvml_reading import BASE, MEMORY, USE, Reader, absent, differing

NOT_SUPPORTED: dict[str, set[str]] = {
    "0.name N/A": {"name"},
    "0.serial N/A": {"serial"},
    "0.vbios N/A": {"vbios_version"},
    "0.inforom N/A": {"inforom_version"},
    "0.gsp N/A": {"gsp_firmware_version"},
    "0.architecture N/A": {"architecture"},
    "0.compute.major N/A": {"compute_capability"},
    "0.minor N/A": {"minor_number"},
    "0.memory.total N/A": MEMORY,
    "0.utilization.gpu N/A": USE,
    "0.encoder N/A": {"encoder_ratio"},
    "0.decoder N/A": {"decoder_ratio"},
    "0.temperature N/A": {"temperature_celsius"},
    "0.temperature.memory N/A": {"memory_temperature_celsius"},
    "0.temperature.margin N/A": {"temperature_margin_celsius"},
    "0.threshold.0 N/A": {"temperature_shutdown_celsius"},
    "0.threshold.1 N/A": {"temperature_slowdown_celsius"},
    "0.fans N/A": {"fan_speed_ratios"},
    "0.fan.1 N/A": {"fan_speed_ratios"},
    "0.power.usage N/A": {"power_watts"},
    "0.power.average N/A": {"power_average_watts"},
    "0.power.limit N/A": {"power_limit_watts"},
    "0.power.default N/A": {"power_default_limit_watts"},
    "0.power.min N/A": {"power_min_limit_watts", "power_max_limit_watts"},
    "0.energy N/A": {"energy_joules_total"},
    "0.clock.graphics N/A": {"graphics_clock_hertz"},
    "0.clock.sm N/A": {"sm_clock_hertz"},
    "0.clock.memory N/A": {"memory_clock_hertz"},
    "0.clock.video N/A": {"video_clock_hertz"},
    "0.clock.max.graphics N/A": {"graphics_max_clock_hertz"},
    "0.clock.max.sm N/A": {"sm_max_clock_hertz"},
    "0.clock.max.memory N/A": {"memory_max_clock_hertz"},
    "0.clocks.reasons N/A": {"clock_events"},
    "0.fv.74 N/A": {"clock_events"},
    "0.pstate N/A": {"performance_state"},
    "0.pstate 32": {"performance_state"},
    "0.pcie.generation N/A": {"pcie_generation"},
    "0.pcie.width N/A": {"pcie_width"},
    "0.pcie.max.generation N/A": {"pcie_max_generation"},
    "0.pcie.max.width N/A": {"pcie_max_width"},
    "0.pcie.replays N/A": {"pcie_replays_total"},
    "0.fv.173 N/A": {"pcie_correctable_errors_total"},
    "0.fv.179 N/A": {"pcie_non_fatal_errors_total"},
    "0.fv.180 N/A": {"pcie_fatal_errors_total"},
    "0.fv.197 N/A": {"pcie_transmit_bytes_total"},
    "0.fv.198 N/A": {"pcie_receive_bytes_total"},
    "0.nvlinks N/A": {"nvlinks", "nvlink_transmit_bytes_total", "nvlink_receive_bytes_total"},
    "0.nvlinks 0": {"nvlinks", "nvlink_transmit_bytes_total", "nvlink_receive_bytes_total"},
    "0.fv.138.4294967295 N/A": {"nvlink_transmit_bytes_total"},
    "0.fv.139.4294967295 N/A": {"nvlink_receive_bytes_total"},
    "0.ecc.mode N/A": {"ecc_enabled", "ecc_errors"},
    "0.sram.threshold N/A": {"sram_threshold_exceeded"},
    "0.remapped.pending N/A": {"remapped_rows"},
    "0.fv.29 N/A": {"retired_pages"},
    "0.fv.30 N/A": {"retired_pages"},
    "0.fv.31 N/A": {"retired_pages_pending"},
    "0.fabric.state N/A": {"fabric"},
    "0.fabric.state 0": {"fabric"},
    "0.recovery N/A": {"recovery_action"},
    "0.persistence N/A": {"persistence_mode"},
    "0.compute.mode N/A": {"compute_mode"},
    "0.mig.mode N/A": {"mig_enabled"},
    "0.processes N/A": {"processes"},
}

GARBAGE: dict[str, tuple[set[str], dict[str, int]]] = {
    "0.memory.used 9223372036854775794": (MEMORY, {"memory_used_bytes": 1}),
    "0.memory.used 150754820095": (MEMORY, {"memory_free_bytes": 1}),
    "0.utilization.gpu 808334905": ({"utilization_ratio"}, {"utilization_ratio": 1}),
    "0.utilization.memory 101": ({"memory_busy_ratio"}, {"memory_busy_ratio": 1}),
    "0.encoder 255": ({"encoder_ratio"}, {"encoder_ratio": 1}),
    "0.decoder 255": ({"decoder_ratio"}, {"decoder_ratio": 1}),
    "0.temperature 345": ({"temperature_celsius"}, {"temperature_celsius": 1}),
    "0.temperature.memory 345": (
        {"memory_temperature_celsius"},
        {"memory_temperature_celsius": 1},
    ),
    "0.temperature.margin -2147483648": (
        {"temperature_margin_celsius"},
        {"temperature_margin_celsius": 1},
    ),
    "0.threshold.1 0": ({"temperature_slowdown_celsius"}, {"temperature_slowdown_celsius": 1}),
    "0.fan.0 4294967295": ({"fan_speed_ratios"}, {"fan_speed_ratios": 1}),
    "0.power.usage 4294967295": ({"power_watts"}, {"power_watts": 1}),
    "0.power.average 4294967295": ({"power_average_watts"}, {"power_average_watts": 1}),
    "0.power.limit 4294967295": ({"power_limit_watts"}, {"power_limit_watts": 1}),
    "0.power.max 4294967295": ({"power_max_limit_watts"}, {"power_max_limit_watts": 1}),
    "0.energy 18446744073709551615": ({"energy_joules_total"}, {"energy_joules_total": 1}),
    "0.clock.sm 4294967295": ({"sm_clock_hertz"}, {"sm_clock_hertz": 1}),
    "0.clock.max.sm 4294967295": ({"sm_max_clock_hertz"}, {"sm_max_clock_hertz": 1}),
    "0.fv.74 18446744073709551615": ({"clock_events"}, {"clock_event_seconds_total": 1}),
    "0.pstate 77": ({"performance_state"}, {"performance_state": 1}),
    "0.pcie.generation 0": ({"pcie_generation"}, {"pcie_generation": 1}),
    "0.pcie.width 255": ({"pcie_width"}, {"pcie_width": 1}),
    "0.fv.197 9223372036854775794": (
        {"pcie_transmit_bytes_total"},
        {"pcie_transmit_bytes_total": 1},
    ),
    "0.fv.138.4294967295 18446744073709551615": (
        {"nvlink_transmit_bytes_total"},
        {"nvlink_transmit_bytes_total": 1},
    ),
    "0.fv.165.3 1000": ({"nvlinks"}, {"nvlink_state": 1}),
    "0.fv.163.3 18446744073709551615": ({"nvlinks"}, {"nvlink_crc_errors_total": 1}),
    "0.ecc.uncorrected.volatile.dram 18446744073709551615": ({"ecc_errors"}, {"ecc_errors": 1}),
    "0.sram.threshold 7": ({"sram_threshold_exceeded"}, {"sram_threshold_exceeded": 1}),
    "0.remapped.corrected 4294967295": ({"remapped_rows"}, {"remapped_rows": 1}),
    "0.remapped.pending 2": ({"remapped_rows"}, {"row_remap_pending": 1}),
    "0.fabric.state 9": ({"fabric"}, {"fabric": 1}),
    "0.recovery 808334905": ({"recovery_action"}, {"recovery_action": 1}),
    "0.persistence 255": ({"persistence_mode"}, {"persistence_mode": 1}),
    "0.compute.mode 808334905": ({"compute_mode"}, {"compute_mode": 1}),
    "0.mig.mode 255": ({"mig_enabled"}, {"mig_enabled": 1}),
    "0.fv.186 d:nan": ({"power_watts"}, {"power_watts": 1}),
    "0.fv.186 77:76500": ({"power_watts"}, {"power_watts": 1}),
    "0.processes 0:5,4711:1000": (set(), {"process_pid": 1}),
    "0.processes 4711:18446744073709551614": ({"processes"}, {"process_memory_bytes": 1}),
}


def test_the_base_has_every_field(read_nvml: Reader) -> None:
    (answer,) = read_nvml(BASE)
    empty = {name for name in Gpu.__struct_fields__ if getattr(answer.gpu, name) in {None, ()}}
    assert empty == {"problem", "problem_detail", "mig_devices"}


def test_what_is_not_supported_is_absent_and_the_rest_stays(read_nvml: Reader) -> None:
    whole, *answers = read_nvml(BASE, *(f"{BASE}{state}" for state in NOT_SUPPORTED), fresh=1)
    for (state, names), answer in zip(NOT_SUPPORTED.items(), answers, strict=True):
        assert answer.all.problems == (), state
        assert answer.all.invalid_total == {}, state
        assert differing(answer.gpu, whole.gpu) == names, state
        if names != {"clock_events"}:
            assert absent(answer.gpu, names), state


def test_nonsense_is_dropped_and_counted_and_the_rest_stays(read_nvml: Reader) -> None:
    whole, *answers = read_nvml(BASE, *(f"{BASE}{state}" for state in GARBAGE), fresh=1)
    for (state, (names, counted)), answer in zip(GARBAGE.items(), answers, strict=True):
        assert differing(answer.gpu, whole.gpu) == names, state
        assert answer.all.invalid_total == counted, state
        (problem,) = answer.all.problems
        assert problem.startswith(f"GPU 0: {next(iter(counted))}: "), state
        whole_lists = {"clock_events", "nvlinks", "ecc_errors", "processes"}
        assert names & whole_lists or absent(answer.gpu, names), state


def test_nonsense_is_counted_for_as_long_as_it_comes(read_nvml: Reader) -> None:
    first, second, third = read_nvml("0.temperature 345", "0.temperature 345", "0.temperature 40")
    assert first.all.invalid_total == {"temperature_celsius": 1}
    assert second.all.invalid_total == third.all.invalid_total == {"temperature_celsius": 2}
    assert second.all.problems == ("GPU 0: temperature_celsius: 345 is out of range",)
    assert third.all.problems == ()
    assert third.gpu.temperature_celsius == 40


ATTRIBUTES = [state.split()[0] for state in [*NOT_SUPPORTED, *GARBAGE]]
NONSENSE = ["0", "1", "-1", "77", "2147483648", "4294967295", "9223372036854775794"]
NONSENSE += ["18446744073709551615", "N/A", "808334905", "345"]


def numbers(gpu: Gpu) -> list[float]:
    return [
        value
        for name in Gpu.__struct_fields__
        if isinstance(value := getattr(gpu, name), int | float) and not isinstance(value, bool)
    ]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_gpu_of_nothing_but_nonsense_is_read(read_nvml: Reader, seed: int) -> None:
    """Whatever NVML answers, nothing breaks, and no number is shown that no GPU can have."""
    chance = random.Random(seed)  # noqa: S311 - the same every time
    states = [
        ";".join(f"{name} {chance.choice(NONSENSE)}" for name in ATTRIBUTES) for _ in range(100)
    ]
    answers = read_nvml(*states, fresh=1)
    for answer in answers:
        if answer.gpus is None:
            continue
        for gpu in answer.all.devices:
            assert gpu.up
            assert all(-150 <= number < 2**64 for number in numbers(gpu))
            assert (gpu.temperature_celsius or 0) <= 150
            assert (gpu.utilization_ratio or 0) <= 1
            assert (gpu.power_watts or 0) <= 10_000
    assert sum(sum(answer.all.invalid_total.values()) for answer in answers) > 1000
