"""Functions of the fake NVML that are missing or in error: what each costs, and nothing else."""

from __future__ import annotations

import ctypes
from pathlib import Path

from farrier_agent.gpus import RemappedRows

from tests.agent.nvml_reading import BASE, MEMORY, USE, Reader, absent, differing
from tests.fakes.nvml.build import build

FUNCTIONS: dict[str, set[str]] = {
    "nvmlDeviceGetName": {"name"},
    "nvmlDeviceGetSerial": {"serial"},
    "nvmlDeviceGetPciInfo": {"pci_bus_id"},
    "nvmlDeviceGetVbiosVersion": {"vbios_version"},
    "nvmlDeviceGetInforomImageVersion": {"inforom_version"},
    "nvmlDeviceGetGspFirmwareVersion": {"gsp_firmware_version"},
    "nvmlDeviceGetArchitecture": {"architecture"},
    "nvmlDeviceGetCudaComputeCapability": {"compute_capability"},
    "nvmlDeviceGetMinorNumber": {"minor_number"},
    "nvmlDeviceGetMemoryInfo": MEMORY,
    "nvmlDeviceGetUtilizationRates": USE,
    "nvmlDeviceGetEncoderUtilization": {"encoder_ratio"},
    "nvmlDeviceGetDecoderUtilization": {"decoder_ratio"},
    "nvmlDeviceGetMarginTemperature": {"temperature_margin_celsius"},
    "nvmlDeviceGetTemperatureThreshold": {
        "temperature_slowdown_celsius",
        "temperature_shutdown_celsius",
    },
    "nvmlDeviceGetNumFans": {"fan_speed_ratios"},
    "nvmlDeviceGetFanSpeed": {"fan_speed_ratios"},
    "nvmlDeviceGetPowerManagementDefaultLimit": {"power_default_limit_watts"},
    "nvmlDeviceGetPowerManagementLimitConstraints": {
        "power_min_limit_watts",
        "power_max_limit_watts",
    },
    "nvmlDeviceGetClockInfo": {
        "graphics_clock_hertz",
        "sm_clock_hertz",
        "memory_clock_hertz",
        "video_clock_hertz",
    },
    "nvmlDeviceGetMaxClockInfo": {
        "graphics_max_clock_hertz",
        "sm_max_clock_hertz",
        "memory_max_clock_hertz",
    },
    "nvmlDeviceGetPerformanceState": {"performance_state"},
    "nvmlDeviceGetCurrPcieLinkGeneration": {"pcie_generation"},
    "nvmlDeviceGetCurrPcieLinkWidth": {"pcie_width"},
    "nvmlDeviceGetMaxPcieLinkGeneration": {"pcie_max_generation"},
    "nvmlDeviceGetMaxPcieLinkWidth": {"pcie_max_width"},
    "nvmlDeviceGetEccMode": {"ecc_enabled"},
    "nvmlDeviceGetSramEccErrorStatus": {"sram_threshold_exceeded"},
    "nvmlDeviceGetGpuFabricInfoV": {"fabric"},
    "nvmlDeviceGetPersistenceMode": {"persistence_mode"},
    "nvmlDeviceGetComputeMode": {"compute_mode"},
    "nvmlDeviceGetMigMode": {"mig_enabled"},
    "nvmlDeviceGetComputeRunningProcesses": {"processes"},
    "nvmlDeviceGetGraphicsRunningProcesses": set(),
    "nvmlDeviceGetMPSComputeRunningProcesses": set(),
}
"""What each function gives that nothing else does."""

OF_FIELDS = {
    "clock_events",
    "memory_temperature_celsius",
    "power_average_watts",
    "pcie_replays_total",
    "pcie_correctable_errors_total",
    "pcie_fatal_errors_total",
    "pcie_non_fatal_errors_total",
    "pcie_transmit_bytes_total",
    "pcie_receive_bytes_total",
    "nvlinks",
    "nvlink_transmit_bytes_total",
    "nvlink_receive_bytes_total",
    "retired_pages",
    "retired_pages_pending",
    "recovery_action",
}
"""What only field values give."""


def test_a_function_that_is_missing_costs_its_fields_and_is_asked_once(read_nvml: Reader) -> None:
    """13 is what the binding says of a symbol that the library does not have."""
    states = [f"{BASE}count 2;err.{function} 13" for function in FUNCTIONS for _ in range(2)]
    whole, _, *answers = read_nvml(*[f"{BASE}count 2"] * 2, *states, fresh=2)
    for at, (function, names) in enumerate(FUNCTIONS.items()):
        first, second = answers[2 * at : 2 * at + 2]
        for answer in (first, second):
            assert answer.all.problems == (), function
            for gpu, other in zip(answer.all.devices, whole.all.devices, strict=True):
                assert differing(gpu, other) == names, function
                assert absent(gpu, names), function
        asked = {name for name, _ in second.calls}
        assert not {name for name in asked if name.startswith(function)}, function


OLD = (
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGpuFabricInfoV",
    "nvmlDeviceGetMarginTemperature",
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetSupportedClocksEventReasons",
    "nvmlDeviceGetSramEccErrorStatus",
)


def test_a_library_without_newer_symbols_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    names = "".join(f"{name}; " for name in OLD)
    (tmp_path / "symbols").write_text(f"{{ local: {names}}};")
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\nexec cc -Wl,--version-script={tmp_path}/symbols "$@"\n')
    compiler.chmod(0o755)
    library = build(tmp_path, str(compiler))
    for name in OLD:
        assert not hasattr(ctypes.CDLL(str(library)), name)
    first, second = Reader(library, tmp_path)(BASE, BASE)
    assert first.all.problems == ()
    gpu = first.gpu
    assert absent(gpu, {"fabric", "temperature_margin_celsius", "sram_threshold_exceeded"})
    assert absent(gpu, {"processes", "recovery_action", "nvlinks"})
    assert (gpu.power_watts, gpu.temperature_celsius) == (76.5, 31.0)
    assert [event.reason for event in gpu.clock_events if event.active] == ["idle"]
    assert not {name for name, _ in second.calls} & {name.removesuffix("_v3") for name in OLD}


def test_a_function_in_error_costs_its_fields_and_is_told(read_nvml: Reader) -> None:
    states = [f"{BASE}err.{function} 999" for function in FUNCTIONS]
    whole, *answers = read_nvml(BASE, *states, fresh=1)
    for (function, names), answer in zip(FUNCTIONS.items(), answers, strict=True):
        assert differing(answer.gpu, whole.gpu) == names, function
        assert absent(answer.gpu, names), function
        (problem,) = answer.all.problems
        assert problem.startswith(f"GPU 0: {function}"), function
        assert problem.endswith(": Unknown Error"), function


def test_an_error_passes(read_nvml: Reader) -> None:
    state = "err.nvmlDeviceGetUtilizationRates 999;err.nvmlDeviceGetMemoryInfo 999;0.fv.230 err:999"
    failed, again = read_nvml(state, "count 1")
    assert failed.all.problems == (
        "GPU 0: field 230 of nvmlDeviceGetFieldValues, nvmlDeviceGetUtilizationRates, "
        "nvmlDeviceGetMemoryInfo: Unknown Error",
    )
    assert absent(failed.gpu, MEMORY | USE | {"recovery_action"})
    assert again.all.problems == ()
    assert again.gpu.utilization_ratio == 0
    assert again.gpu.recovery_action == "none"


def test_without_field_values_calls_take_their_place(read_nvml: Reader) -> None:
    """As with a library that has no nvmlDeviceGetFieldValues."""
    (whole, without) = read_nvml(BASE, f"{BASE}err.nvmlDeviceGetFieldValues 13", fresh=1)
    assert without.all.problems == ()
    assert differing(without.gpu, whole.gpu) == OF_FIELDS
    assert absent(without.gpu, OF_FIELDS - {"clock_events"})
    assert without.gpu.power_watts == 76.5
    assert without.gpu.energy_joules_total == 123456.789
    assert without.gpu.remapped_rows == RemappedRows(
        corrected=0, uncorrected=0, pending=False, failed=False
    )
    assert without.times("nvmlDeviceGetFieldValues") == 1
