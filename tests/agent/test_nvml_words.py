"""NVML's codes and masks as words: those of the installed binding."""

from __future__ import annotations

from typing import Any

import pynvml
import pytest
from farrier_agent.nvml.fields import CLOCK_EVENTS
from farrier_agent.nvml.readings import clocks, fabric, identity, mig
from hypothesis import given
from hypothesis import strategies as st

WORDS = {
    "degraded_bandwidth": ("DEGRADED_BW", "TRUE"),
    "route_recovery": ("ROUTE_RECOVERY", "TRUE"),
    "route_unhealthy": ("ROUTE_UNHEALTHY", "TRUE"),
    "access_timeout": ("ACCESS_TIMEOUT_RECOVERY", "TRUE"),
    "incorrect_system_guid": ("INCORRECT_CONFIGURATION", "INCORRECT_SYSGUID"),
    "incorrect_chassis_serial": ("INCORRECT_CONFIGURATION", "INCORRECT_CHASSIS_SN"),
    "no_partition": ("INCORRECT_CONFIGURATION", "NO_PARTITION"),
    "insufficient_nvlinks": ("INCORRECT_CONFIGURATION", "INSUFFICIENT_NVLINKS"),
    "incompatible_firmware": ("INCORRECT_CONFIGURATION", "INCOMPATIBLE_GPU_FW"),
    "invalid_location": ("INCORRECT_CONFIGURATION", "INVALID_LOCATION"),
    "gpu_state_invalid": ("INCORRECT_CONFIGURATION", "GPU_STATE_INVALID"),
    "partition_not_assigned": ("PARTITION_ASSIGNED", "FALSE"),
    "fabric_manager_disconnected": ("GFM_STATE", "DISCONNECTED"),
}


def part(name: str, value: str) -> int:
    mask = "NVML_GPU_FABRIC_HEALTH_MASK"
    shift: int = getattr(pynvml, f"{mask}_SHIFT_{name}")
    return int(getattr(pynvml, f"{mask}_{name}_{value}")) << shift


@pytest.mark.parametrize("word", WORDS)
def test_every_fault_of_the_fabric_is_a_word(word: str) -> None:
    assert fabric.problems(part(*WORDS[word])) == (word,)
    assert fabric.problems(part(*WORDS[word]), 2) == (word,), "the summary says no more"


def test_a_healthy_fabric_has_no_problem() -> None:
    fine = (
        part("DEGRADED_BW", "FALSE")
        | part("ROUTE_RECOVERY", "FALSE")
        | part("ROUTE_UNHEALTHY", "FALSE")
        | part("ACCESS_TIMEOUT_RECOVERY", "FALSE")
        | part("INCORRECT_CONFIGURATION", "NONE")
        | part("PARTITION_ASSIGNED", "TRUE")
        | part("GFM_STATE", "CONNECTED")
    )
    assert fabric.problems(fine, 1) == ()
    assert fabric.problems(0, 0) == ()
    assert fabric.problems(fine, 2) == ("unhealthy",)
    assert fabric.problems(fine, 3) == ("limited_capacity",)


@given(st.integers(0, 2**32 - 1), st.integers(0, 255))
def test_any_mask_gives_words_once(mask: int, summary: int) -> None:
    words = fabric.problems(mask, summary)
    known = {*WORDS, "incorrect_configuration", "unhealthy", "limited_capacity"}
    assert set(words) <= known
    assert len(set(words)) == len(words)


def names(prefix: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The binding's constants that begin with *prefix*, by the rest of their names."""
    found = {one.removeprefix(prefix): one for one in dir(pynvml) if one.startswith(prefix)}
    return {rest: getattr(pynvml, found[rest]) for rest in found if rest not in without}


def test_words_are_those_of_the_binding() -> None:
    """What a new binding adds has to get a word here, or to be left out on purpose."""
    actions = names("NVML_GPU_RECOVERY_ACTION_")
    assert set(actions.values()) == set(fabric.ACTIONS)
    for name, code in actions.items():
        assert fabric.ACTIONS[code] == name.lower().removeprefix("recover_")
    states = names("NVML_GPU_FABRIC_STATE_", ("NOT_SUPPORTED",))
    assert {code: name.lower() for name, code in states.items()} == fabric.STATES
    modes = names("NVML_COMPUTEMODE_", ("COUNT",))
    assert {code: name.lower() for name, code in modes.items()} == mig.COMPUTE_MODES
    parts = names("NVML_DEVICE_ARCH_", ("UNKNOWN", "DLA", "DLA2", "NPU3"))
    assert set(parts.values()) == set(identity.ARCHITECTURES)
    for name, code in parts.items():
        assert identity.ARCHITECTURES[code].upper().startswith(name)


def test_reasons_are_the_bits_of_the_binding() -> None:
    bits = {reason: bit for reason, bit in clocks.REASONS.items() if bit}
    assert bits == {
        "idle": pynvml.nvmlClocksEventReasonGpuIdle,
        "applications_clocks": pynvml.nvmlClocksEventReasonApplicationsClocksSetting,
        "sw_power_cap": pynvml.nvmlClocksEventReasonSwPowerCap,
        "hw_slowdown": pynvml.nvmlClocksEventReasonHwSlowdown,
        "sync_boost": pynvml.nvmlClocksEventReasonSyncBoost,
        "sw_thermal": pynvml.nvmlClocksEventReasonSwThermalSlowdown,
        "hw_thermal": pynvml.nvmlClocksEventReasonHwThermalSlowdown,
        "hw_power_brake": pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
        "display": pynvml.nvmlClocksEventReasonDisplayClockSetting,
    }
    together = 0
    for bit in bits.values():
        together |= bit
    assert together == pynvml.nvmlClocksEventReasonAll
    assert {field.name for field in CLOCK_EVENTS} <= set(clocks.REASONS)
