"""Field values of NVML: types, layout and identifiers are those of the binding."""

from __future__ import annotations

import ctypes
import math
import struct

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
from hypothesis import example, given
from hypothesis import strategies as st

RAW = st.integers(0, 2**64 - 1)

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
