"""NVML's numbers, made values of by pure functions: field values, ranges, masks, texts."""

from __future__ import annotations

import ctypes
import math
import struct
from typing import Any

import pynvml
import pytest
from farrier_agent.nvml.fields import (
    ALL_LINKS,
    CLOCK_EVENTS,
    FAST,
    LINK_FAST,
    LINK_SLOW,
    SLOW,
    decode,
    of_driver,
    of_links,
)
from farrier_agent.nvml.readings import clocks, fabric, identity, mig
from farrier_agent.nvml.values import RANGES, TEXT_LIMIT, convert, convert_text
from hypothesis import example, given
from hypothesis import strategies as st

RAW = st.integers(0, 2**64 - 1)
NUMBERS = st.one_of(st.integers(-(2**63), 2**64), st.floats(allow_nan=True, allow_infinity=True))

TYPES = {
    pynvml.NVML_VALUE_TYPE_DOUBLE: "dVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_INT: "siVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_SHORT: "usVal",
}


def same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


@given(RAW, st.sampled_from(sorted(TYPES)))
@example(2**64 - 1, pynvml.NVML_VALUE_TYPE_SIGNED_INT)
@example(struct.unpack("<Q", struct.pack("<d", 76.5))[0], pynvml.NVML_VALUE_TYPE_DOUBLE)
def test_a_value_is_what_the_binding_reads_by_its_type(raw: int, value_type: int) -> None:
    union = pynvml.c_nvmlValue_t()
    union.ullVal = raw
    value = decode(value_type, raw)
    assert value is not None
    assert same(value, getattr(union, TYPES[value_type]))


@given(RAW, st.integers(-(2**31), 2**31).filter(lambda one: one not in TYPES))
@example(7, pynvml.NVML_VALUE_TYPE_COUNT)
def test_a_value_of_an_unknown_type_is_none(raw: int, value_type: int) -> None:
    assert decode(value_type, raw) is None


def test_every_type_of_the_binding_is_known() -> None:
    assert set(TYPES) == set(range(pynvml.NVML_VALUE_TYPE_COUNT))


def test_the_layout_is_the_bindings() -> None:
    """The batch is unpacked by its bytes, for speed: a new layout has to fail here."""
    kind = pynvml.c_nvmlFieldValue_t
    assert ctypes.sizeof(kind) == 40
    names = ("fieldId", "scopeId", "timestamp", "latencyUsec", "valueType", "nvmlReturn", "value")
    offsets = [(getattr(kind, name).offset, getattr(kind, name).size) for name in names]
    assert offsets == [(0, 4), (4, 4), (8, 8), (16, 8), (24, 4), (28, 4), (32, 8)]


NAMES = {
    29: "RETIRED_SBE",
    30: "RETIRED_DBE",
    31: "RETIRED_PENDING",
    74: "PERF_POLICY_POWER",
    76: "PERF_POLICY_SYNC_BOOST",
    78: "PERF_POLICY_LOW_UTILIZATION",
    79: "PERF_POLICY_RELIABILITY",
    82: "MEMORY_TEMP",
    83: "TOTAL_ENERGY_CONSUMPTION",
    94: "PCIE_REPLAY_COUNTER",
    138: "NVLINK_THROUGHPUT_DATA_TX",
    139: "NVLINK_THROUGHPUT_DATA_RX",
    142: "REMAPPED_COR",
    143: "REMAPPED_UNC",
    144: "REMAPPED_PENDING",
    145: "REMAPPED_FAILURE",
    161: "NVLINK_ERROR_DL_REPLAY",
    162: "NVLINK_ERROR_DL_RECOVERY",
    163: "NVLINK_ERROR_DL_CRC",
    165: "NVLINK_GET_STATE",
    173: "PCIE_COUNT_CORRECTABLE_ERRORS",
    179: "PCIE_COUNT_NON_FATAL_ERROR",
    180: "PCIE_COUNT_FATAL_ERROR",
    185: "POWER_AVERAGE",
    186: "POWER_INSTANT",
    190: "POWER_CURRENT_LIMIT",
    197: "PCIE_COUNT_TX_BYTES",
    198: "PCIE_COUNT_RX_BYTES",
    202: "NVLINK_COUNT_XMIT_BYTES",
    204: "NVLINK_COUNT_RCV_BYTES",
    215: "NVLINK_COUNT_LINK_RECOVERY_EVENTS",
    219: "NVLINK_COUNT_EFFECTIVE_ERRORS",
    221: "NVLINK_COUNT_SYMBOL_ERRORS",
    230: "GET_GPU_RECOVERY_ACTION",
    269: "CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN",
    270: "CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN",
    271: "CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN",
}


def test_identifiers_are_those_of_the_binding() -> None:
    """Of the installed one: a renumbering in a later one has to fail here."""
    asked = [*FAST, *SLOW, *LINK_FAST, *LINK_SLOW]
    assert len({field.id for field in asked}) == len(asked)
    assert {field.id for field in asked} == set(NAMES)
    for number, name in NAMES.items():
        assert getattr(pynvml, f"NVML_FI_DEV_{name}") == number


@pytest.mark.parametrize(
    ("driver", "asked"),
    [
        ((580, 82, 7), True),
        ((580, 95, 5), True),
        ((590, 0), True),
        ((580, 65, 6), False),
        ((575, 57, 8), False),
        ((), False),
    ],
)
def test_renumbered_identifiers_are_only_asked_where_they_mean_it(
    driver: tuple[int, ...], asked: bool
) -> None:
    identifiers = {field.id for field in of_driver([*FAST, *SLOW], driver)}
    assert {269, 270, 271} <= identifiers or not asked
    assert not identifiers & {269, 270, 271} or asked
    assert not identifiers & set(range(251, 269))
    assert {74, 76, 142, 230} <= identifiers


def test_fields_of_links_carry_their_link_and_sums_all() -> None:
    assert [field.scope for field in of_links(LINK_FAST[:1], 3)] == [0, 1, 2]
    assert of_links(LINK_SLOW, 0) == []
    sums = [field for field in FAST if field.name.startswith("nvlink")]
    assert [field.scope for field in sums] == [ALL_LINKS, ALL_LINKS]


def test_counters_that_would_wrap_in_seconds_must_be_wide() -> None:
    for field in [*FAST, *LINK_SLOW]:
        if "bytes" in field.name or field in CLOCK_EVENTS or "energy" in field.name:
            assert field.wide, field


@given(st.sampled_from(sorted(RANGES)), NUMBERS)
@example("temperature_celsius", 345)
@example("utilization_ratio", 808334905)
@example("memory_used_bytes", 9223372036854775794)
@example("pcie_transmit_bytes_total", 9223372036854775794)
@example("power_watts", 2**32 - 1)
@example("sm_clock_hertz", 2**32 - 1)
@example("energy_joules_total", 2**64 - 1)
@example("persistence_mode", 2)
def test_no_value_leaves_its_range(field: str, raw: float) -> None:
    low, high, times, per, flag = RANGES[field]
    value = convert(field, raw)
    assert (value is None) == (not low <= raw <= high)
    if value is None:
        return
    assert isinstance(value, bool) == flag
    if flag:
        assert value is bool(raw)
    elif per:
        assert isinstance(value, float)
        assert low / per <= value <= high / per
    else:
        assert isinstance(value, int)
        assert low * times <= value <= high * times < 2**64, "JSON takes no more"


@pytest.mark.parametrize(
    ("field", "raw", "value"),
    [
        ("utilization_ratio", 0, 0.0),
        ("utilization_ratio", 100, 1.0),
        ("utilization_ratio", 101, None),
        ("temperature_celsius", -10, -10.0),
        ("temperature_celsius", 345, None),
        ("temperature_margin_celsius", -3, -3.0),
        ("power_watts", 0, 0.0),
        ("power_watts", 76500, 76.5),
        ("power_watts", 2**32 - 1, None),
        ("energy_joules_total", 123456789, 123456.789),
        ("sm_clock_hertz", 0, 0),
        ("memory_clock_hertz", 14001, 14_001_000_000),
        ("sm_clock_hertz", 2**32 - 1, None),
        ("clock_event_seconds_total", 1_500_000_000, 1.5),
        ("nvlink_transmit_bytes_total", 3, 3072),
        ("fan_speed_ratios", 105, 1.05),
        ("row_remap_pending", 1, True),
        ("row_remap_pending", 2, None),
        ("ecc_errors", math.nan, None),
        ("ecc_errors", math.inf, None),
        ("ecc_errors", -1, None),
    ],
)
def test_units(field: str, raw: float, value: float | None) -> None:
    assert convert(field, raw) == value
    assert type(convert(field, raw)) is type(value)


@given(st.one_of(st.text(), st.binary()))
@example(b"580.95.05")
@example(b"\xff\xfe")
@example("NVIDIA H200\n")
@example("two\nlines")
@example("x" * (TEXT_LIMIT + 1))
def test_a_text_is_one_short_line_or_nothing(raw: str | bytes) -> None:
    text = convert_text(raw)
    if text is not None:
        assert 0 < len(text) <= TEXT_LIMIT
        assert text.isprintable()
        assert text.isascii()
        assert text == text.strip()


def test_texts() -> None:
    assert convert_text(b"580.95.05") == "580.95.05"
    assert convert_text("NVIDIA H200\n") == "NVIDIA H200"
    for bad in (b"\xff\xfe", "two\nlines", "", "   ", "x" * (TEXT_LIMIT + 1)):
        assert convert_text(bad) is None


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
