"""NVML's numbers and texts: in their ranges and units, or nothing."""

from __future__ import annotations

import math

import pytest
from farrier_agent.nvml.values import RANGES, TEXT_LIMIT, convert, convert_text
from hypothesis import example, given
from hypothesis import strategies as st

NUMBERS = st.one_of(st.integers(-(2**63), 2**64), st.floats(allow_nan=True, allow_infinity=True))


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
