"""The program that measures NVML calls, on the fake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from farrier_agent.gpus import Gpus

from tests.bench.nvml_calls import percentile


def measure(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.bench.nvml_calls", "--readings=3", "--every=0", *arguments],
        env={**os.environ, "FAKE_NVML_STATE": str(tmp_path / "state")},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_call_and_every_field_has_its_row(nvml_library: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("count 2\n0.fv.198 N/A\n1.clock.sm N/A\n0.temperature 345\n")
    capture = tmp_path / "reading.json"
    result = measure(tmp_path, f"--library={nvml_library}", f"--capture={capture}")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    by_name = {row[0]: row for row in rows}
    assert lines[0].startswith("2 x NVIDIA H200; driver 580.95.05, NVML 13.")
    # three readings and one before them, of two kinds; and the first of all
    assert by_name["`nvmlDeviceGetUtilizationRates`"][1] == "18"
    assert by_name["`nvmlDeviceGetEncoderUtilization`"][1] == "12"
    assert by_name["`nvmlDeviceGetTemperatureThreshold`"][5] == "3"
    assert by_name["`nvmlDeviceGetClockInfo`"][5].startswith("0 (")
    assert by_name["of a tick"][1] == "36"
    fast = by_name["`nvmlDeviceGetUtilizationRates`"]
    assert 0 < float(fast[2]) <= float(fast[3]) <= float(fast[4])
    assert by_name["161"][:4] == ["161", "0 to 17", "0", "ulonglong"]
    assert by_name["138"][1] == "all"
    assert by_name["198"][2] == "3"
    assert "out of range: temperature_celsius, " in result.stdout
    assert "problem: GPU 0: temperature_celsius: 345 is out of range" in result.stdout
    gpus = msgspec.json.decode(capture.read_bytes(), type=Gpus)
    assert [gpu.sm_clock_hertz for gpu in gpus.devices] == [345_000_000, None]


def test_without_a_library_it_says_so(tmp_path: Path) -> None:
    result = measure(tmp_path, f"--library={tmp_path}/libnvidia-ml.so.1")
    assert result.returncode == 1
    assert f"nvml_calls: {tmp_path}/libnvidia-ml.so.1: cannot open" in result.stderr


@pytest.mark.parametrize(("part", "value"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_a_percentile_is_one_of_the_values(part: float, value: float) -> None:
    assert percentile(range(100, 0, -1), part) == value
    assert percentile([7.0], part) == 7.0
